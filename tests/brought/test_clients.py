"""Clients as people have them: partitions from files and columns, their names, and what is drawn."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fused_ray import load_run, run
from fused_ray.cli.app import main
from fused_ray.config import DataConfig, RunConfig
from fused_ray.data import partition_file, partitions
from fused_ray.errors import ConfigError, DataError, FusedRayError
from fused_ray.seeding import generator, permutation
from fused_ray.types import Scenario
from tests.brought.pictures import PNG, brought, built, encoded, write

# --- partitions ----------------------------------------------------------------------------------------------


def owners(
    where: Path, clients: int, column: str | None = None, examples: int = 6
) -> tuple[list[int], tuple[str, ...]]:
    config = DataConfig(partition="file", partition_file=str(where), client_column=column)
    found = partition_file.owners(config, clients, examples)
    return found.client.tolist(), found.names


LINES = "5,ben\n4,anna\n3,ben\n2,cleo\n1,ben\n0,anna\n"


HELD = ([0, 1, 2, 1, 0, 1], ("anna", "ben", "cleo"))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("example,client\n" + LINES, id="plain"),
        pytest.param("\ufeffexample,client\n" + LINES, id="byte order mark"),
        pytest.param(("example,client\n" + LINES).replace("\n", "\r\n"), id="CRLF"),
        pytest.param('"example","client"\n' + LINES.replace("ben", '"ben"'), id="quotes"),
        pytest.param(" example , client\n" + LINES.replace(",", " , "), id="spaces"),
        pytest.param(
            "client,example,client name\n" + "".join(f"{line[2:]},{line[0]},x\n" for line in LINES.split()), id="order"
        ),
        pytest.param("example,client\n" + LINES.replace(",", ".0,"), id="examples as floats"),
        pytest.param("example,client\n" + LINES.replace("\n", "\n\n"), id="blank lines"),
        pytest.param("client\nanna\nben\ncleo\nben\nanna\nben\n", id="a row per example"),
    ],
)
@pytest.mark.parametrize("kind", [".csv", ".csv.gz", ".CSV"])
def test_tables_as_spreadsheets_write_them(tmp_path: Path, content: str, kind: str) -> None:
    where = tmp_path / f"who{kind}"
    where.write_bytes(gzip.compress(content.encode()) if kind.endswith("gz") else content.encode())
    assert owners(where, 3) == HELD


@pytest.mark.parametrize(
    ("ids", "held", "names"),
    [
        pytest.param([0, 1, 2], [0, 1, 2], (), id="from 0"),
        pytest.param([2.0, 0.0, 1.0], [2, 0, 1], (), id="floats"),
        pytest.param(["2", "0", "1.0"], [2, 0, 1], (), id="text"),
        pytest.param([3, 1, 2], [2, 0, 1], ("1", "2", "3"), id="from 1"),
        pytest.param([1007, 10, 900], [2, 0, 1], ("10", "900", "1007"), id="numbers of people"),
        pytest.param(["007", "010", "002"], [1, 2, 0], ("002", "007", "010"), id="leading zeros"),
        pytest.param(["w1", "w0", "3"], [2, 1, 0], ("3", "w0", "w1"), id="words"),
        pytest.param(pa.array(["w1", "w0", "w2"]).dictionary_encode(), [1, 0, 2], ("w0", "w1", "w2"), id="categories"),
        pytest.param([True, False, True], [1, 0, 1], (), id="true and false"),
    ],
)
def test_clients_are_called_as_their_owner_calls_them(
    tmp_path: Path, ids: Any, held: list[int], names: tuple[str, ...]
) -> None:
    where = tmp_path / "who.parquet"
    pq.write_table(pa.table({"writer": pa.array(ids), "other": [0, 0, 0]}), where)
    assert owners(where, len(set(held)), "writer", 3) == (held, names)
    if not isinstance(ids, pa.Array):
        np.save(tmp_path / "who.npy", np.array(ids))
        assert owners(tmp_path / "who.npy", len(set(held)), None, 3) == (held, names)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "client,example,client\n0,0,0\n1,1,1\n", "a.csv has 2 columns that are called client; keep one"),
        ("a.csv", "example,client,example\n0,0,0\n1,1,1\n", "a.csv has 2 columns that are called example; keep one"),
        (
            "a.csv",
            "example;client\n0;0\n1;1\n",
            "has the columns example;client; it needs client, and maybe example: set",
        ),
        ("a.csv", "example,writer\n0,0\n1,1\n", "set data.client_column to the one that says whose an example is"),
        ("a.csv", "example,client\n0,anna\n1,\n", "column client, row 1: there is no client"),
        ("a.csv", "example,client\n0,anna\n,ben\n", "column example, row 1: there is no example"),
        ("a.csv", "example,client\n0,anna\n0.5,ben\n", "row 1: example 0.5 is no whole number"),
        ("a.csv", "example,client\n0,anna\n0,ben\n", "row 1: example 0 has a client already"),
        ("a.csv", "example,client\n0,anna\n", "names no client for example 1 (1 of 2 are missing)"),
        ("a.csv", "client\nanna\nben\ncleo\n", "names 3 clients in a row, but there are 2 training examples"),
        ("a.csv", "client\nanna\nanna\n", "federation.clients: "),
        ("a.csv", "client\nanna\nanna\n", "names 1 clients (anna), not 2; set federation.clients=1"),
        ("a.csv", "client\n0\n-1\n", "row 1: client -1 is below 0"),
        ("a.csv", "client\n0\n1,2\n", "is not a readable .csv file: row 1 has 2 fields, not 1"),
        ("a.csv", 'client\n"0\n1\n', "is not a readable .csv file: unexpected end of data"),
        ("a.csv", "client\n0\n1\n".encode("utf-16"), "is not a readable .csv file: 'utf-8' codec"),
        ("a.csv.gz", "client\n0\n1\n", "a.csv.gz is not a readable .csv.gz file: "),
        ("a.parquet", pa.table([[0, 1], [0, 1]], ["client", "client"]), "has 2 columns that are called client"),
        ("a.parquet", pa.table({"client": [0.0, float("nan")]}), "row 1: there is no client"),
        ("a.parquet", pa.table({"client": pa.array([1, 2], pa.date32())}), "date32[day], neither whole numbers nor"),
        ("a.xlsx", "", "data.partition_file: "),
    ],
)
def test_tables_that_name_no_clients_are_refused(tmp_path: Path, name: str, content: Any, said: str) -> None:
    if isinstance(content, pa.Table):
        pq.write_table(content, tmp_path / name)
    else:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        owners(tmp_path / name, 2, examples=2)
    assert f"{tmp_path}/{name}" in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


# --- natural clients -----------------------------------------------------------------------------------------

WRITERS = ["writer_7", "writer_12", "anna [b]"]


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    """60 + 6 letters of 16 x 16 pixels by three writers, in two shards; anna's come first in the alphabet."""
    for shard in range(2):
        cells = [encoded(np.full((16, 16), 4 * number, np.uint8)) for number in range(30)]
        writers = pa.array([WRITERS[number % 3] for number in range(30)])
        write(tmp_path / f"train-0000{shard}-of-00002.parquet", cells, np.arange(30) % 2, writer=writers)
    write(tmp_path / "validation.parquet", [PNG16] * 6, np.arange(6) % 2)
    return tmp_path


PNG16 = encoded(np.full((16, 16), 9, np.uint8))


NATURAL = ["data.partition=file", "data.client_column=writer", "federation.clients=3", "forget.scenario=client"]


def natural(root: Path, *more: str) -> RunConfig:
    quick = ["pretrain.rounds=1", "unlearn.rounds=1", "retrain.rounds=0", "unlearn.layers=1", "output.plots=false"]
    place = ["data.name=parquet", f"data.root={root}", "engine.backend=local", f"output.dir={root / 'run'}"]
    return RunConfig.from_dict({}, [*place, *NATURAL, *quick, *more])


def test_a_column_of_the_data_says_whose_an_example_is(letters: Path) -> None:
    scenario = built(natural(letters, "forget.clients=writer_12"))
    assert scenario.client_names == ("anna [b]", "writer_12", "writer_7")
    assert scenario.held[0].tolist() == list(range(2, 60, 3))
    assert [len(kept) for kept in scenario.retained] == [20, 0, 20]
    listed = built(natural(letters, "forget.clients=['writer_12', 'anna [b]']", "data.limit=30", "data.min_examples=1"))
    assert [len(kept) > 0 for kept in listed.retained] == [False, False, True]
    assert sum(map(len, listed.held)) == 30


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["forget.clients=[1]"], "forget.clients: there is no client 1; clients are anna [b], writer_12, writer_7"),
        (["forget.clients=[writer_1]"], "forget.clients: there is no client writer_1"),
        (["federation.clients=50", "forget.clients=[anna]"], "names 3 clients (anna [b], writer_12, writer_7), not 50"),
        (
            ["data.client_column=author"],
            "train-00000-of-00002.parquet has no column author; it has image, label, writer",
        ),
        (["data.min_examples=21"], "client anna [b] would hold 20 examples, fewer than data.min_examples = 21; lower"),
    ],
)
def test_clients_that_are_not_there_are_named(letters: Path, more: list[str], said: str) -> None:
    with pytest.raises(FusedRayError) as caught:
        built(natural(letters, *more))
    assert said in str(caught.value)


def test_numbers_that_are_names_are_meant_as_names(tmp_path: Path) -> None:
    """Client 1 of a partition that counts from 1 is the first, whatever its number here."""
    brought(tmp_path, [PNG] * 40, person=pa.array(np.arange(40) % 4 + 1))
    own = ["data.client_column=person", "federation.clients=4", "model.factory=own:net"]
    scenario = built(natural(tmp_path, *own, "forget.clients=[1]"))
    assert [len(kept) for kept in scenario.retained] == [0, 10, 10, 10]
    with pytest.raises(ConfigError, match="there is no client 0; clients are 1, 2, 3, 4"):
        built(natural(tmp_path, *own, "forget.clients=[0]"))


def test_a_run_keeps_the_names_and_says_its_notes_first(letters: Path) -> None:
    notes: list[tuple[str, ...]] = []
    run(natural(letters, "forget.clients=writer_12"), listener=lambda progress: notes.append(progress.notes))
    rows = load_run(letters / "run").table("clients").to_pylist()
    assert {(row["client"], row["client_name"]) for row in rows} == {(0, "anna [b]"), (1, "writer_12"), (2, "writer_7")}
    assert notes[0] == ("there is no split called test: validation is the test set",)


def test_a_table_from_before_there_were_names_is_read(letters: Path) -> None:
    run(natural(letters, "forget.clients=writer_12"))
    part = min((letters / "run" / "clients.parquet").glob("*.parquet"))
    pq.write_table(pq.read_table(part).drop_columns("client_name"), part)
    names = {row["client_name"] for row in load_run(letters / "run").table("clients").to_pylist()}
    assert names == {None, "anna [b]", "writer_12", "writer_7"}


def test_the_command_shows_names_and_notes(letters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["data.name=parquet", f"data.root={letters}", *NATURAL, "forget.clients=['anna [b]']"]
    for more, code in (([], 0), (["federation.clients=4"], 2)):
        with pytest.raises(SystemExit) as ended:
            main(["data", *(part for value in [*given, *more] for part in ("--set", value))])
        assert ended.value.code == code
    said = capsys.readouterr()
    assert "note: there is no split called test" in said.out
    assert all(name in said.out for name in WRITERS)
    assert said.err.count("\n") == 1


# --- a class without test images -----------------------------------------------------------------------------


def classes(tmp_path: Path, test: list[int], forget: str, *more: str) -> Scenario:
    named = {"label": {"_type": "ClassLabel", "names": ["ant", "bee", "cat"]}}
    for split, labels in (("train", [0, 1, 2] * 20), ("test", test)):
        table = pa.table({"image": [PNG16] * len(labels), "label": labels})
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": named}})})
        pq.write_table(table, tmp_path / f"{split}.parquet")
    own = ["data.name=parquet", f"data.root={tmp_path}", "federation.clients=3", f"forget.classes={forget}", *more]
    return built(RunConfig.from_dict({}, own))


def test_a_forgotten_class_without_test_images_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^forget\.classes: the test set has no example of class 2 \(cat\), so that"):
        classes(tmp_path, [0, 1], "[2]")
    with pytest.raises(DataError, match=r"class 0 \(ant\), so that .*; raise data\.limit$"):
        classes(tmp_path, [1, 2, 2], "[1, 0]", "forget.scenario=exclusive", "data.limit=50", "data.min_examples=1")
    scenario = classes(tmp_path, [0, 1, 1], "[1, 2]")
    assert scenario.notes[-1].startswith("the test set has no example of class 2 (cat): FA is")
    assert scenario.views["fa"].indices.tolist() == [1, 2]


# --- draws ---------------------------------------------------------------------------------------------------


def plainly(labels: Any, clients: int, alpha: float, least: int, seed: int) -> list[list[int]]:
    """Dirichlet shares of each class, client by client, as the paper's experiments draw them."""
    for attempt in range(1, 101):
        rng = generator(seed, "partition", attempt)
        parts: list[list[int]] = [[] for _ in range(clients)]
        for label in sorted(set(labels.tolist())):
            members = np.flatnonzero(labels == label)
            members = members[permutation(len(members), seed, f"partition/{label}", attempt)]
            ends = (np.cumsum(rng.dirichlet([alpha] * clients)) * len(members)).round().astype(int)
            for client, start, end in zip(range(clients), [0, *ends], [*ends[:-1], len(members)], strict=False):
                parts[client] += members[start:end].tolist()
        if min(map(len, parts)) >= least:
            break
    while min(map(len, parts)) < least:
        sizes = [len(part) for part in parts]
        short, giver = sizes.index(min(sizes)), sizes.index(max(sizes))
        order = permutation(sizes[giver], seed, "partition/move", client=giver)
        moved = min(least - sizes[short], sizes[giver] - least)
        parts[short] += [parts[giver][at] for at in order[:moved]]
        parts[giver] = [parts[giver][at] for at in order[moved:]]
    return [sorted(part) for part in parts]


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    clients=st.integers(1, 9),
    alpha=st.sampled_from([1e-6, 0.1, 1.0, 50.0]),
    least=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_a_draw_is_the_plain_one(sizes: list[int], clients: int, alpha: float, least: int, seed: int) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    if clients * least > len(labels):
        return
    found = partitions.partition(DataConfig(alpha=alpha, min_examples=least), clients, labels, seed)
    assert [part.tolist() for part in found.parts] == plainly(labels, clients, alpha, least, seed)


def test_clients_that_were_topped_up_are_said() -> None:
    labels = np.repeat(np.arange(10), 100)
    found = partitions.partition(DataConfig(alpha=0.05, min_examples=10), 50, labels, 0)
    (note,) = found.notes
    drawn = partitions.partition(DataConfig(alpha=100, min_examples=10), 50, labels, 0)
    assert drawn.notes == ()
    assert note.startswith(
        "no draw of 100 from Dirichlet(0.05) left each of 50 clients 10 examples (data.min_examples)"
    )
    config = RunConfig.from_dict({}, ["data.limit=1000", "data.alpha=0.05"])
    assert built(config).notes[0].startswith("no draw of 100")


def test_four_thousand_clients_are_drawn_in_no_time() -> None:
    """Client by client it took nine seconds of processor time."""
    began = time.process_time()
    partitions.partition(DataConfig(alpha=0.1), 4_000, np.repeat(np.arange(10), 6_000), 0)
    assert time.process_time() - began < 3
