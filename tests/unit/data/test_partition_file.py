"""Partitions from the user's own file: the three formats, the contract, a limit, and every fault with its row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fused_ray.config import DataConfig, RunConfig
from fused_ray.data import datasets, partition_file, scenarios
from fused_ray.data.partitions import from_file
from fused_ray.errors import ConfigError, DataError
from fused_ray.types import ImageData

CLIENTS = [2, 0, 1, 1, 0, 2]


def write(path: Path, clients: Any, examples: Any = None) -> str:
    columns = {"client": clients} if examples is None else {"example": examples, "client": clients}
    if path.suffix == ".npy":
        np.save(path, np.asarray(clients))
    elif path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    else:
        rows = zip(*columns.values(), strict=True)
        path.write_text("\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)]) + "\n")
    return str(path)


def owners(where: str, clients: int, examples: int, column: str | None = None) -> partition_file.Owners:
    config = DataConfig(partition="file", partition_file=where, client_column=column)
    return partition_file.owners(config, clients, examples)


def data_of(n: int, **fields: Any) -> ImageData:
    pixels = np.zeros((n, 1, 1, 1), np.uint8)
    return ImageData("toy", 1, (0.0,), (1.0,), pixels, np.zeros(n, np.int64), pixels, np.zeros(n, np.int64), **fields)


@pytest.mark.parametrize("kind", ["parquet", "csv", "npy"])
def test_a_vector_is_in_the_order_of_the_training_set(tmp_path: Path, kind: str) -> None:
    where = write(tmp_path / f"who.{kind}", CLIENTS)
    assert owners(where, 3, 6).client.tolist() == CLIENTS
    config = DataConfig(partition="file", partition_file=where, min_examples=2)
    assert [part.tolist() for part in from_file(config, 3, data_of(6)).parts] == [[1, 4], [2, 3], [0, 5]]
    assert owners((tmp_path / f"who.{kind}").as_uri(), 3, 6).client.tolist() == CLIENTS


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_rows_that_name_their_example_may_stand_in_any_order(tmp_path: Path, kind: str) -> None:
    examples = [4, 0, 2, 1, 3, 5]
    where = write(tmp_path / f"who.{kind}", [CLIENTS[example] for example in examples], examples)
    assert owners(where, 3, 6).client.tolist() == CLIENTS


def test_of_a_parquet_file_no_other_column_is_read(tmp_path: Path) -> None:
    """It may be the data themselves, images and all: here the images are damaged, and nobody notices."""
    path, table = tmp_path / "who.parquet", pa.table({"image": [b"pixels" * 9] * 6, "client": CLIENTS})
    pq.write_table(table, path, compression="none", use_dictionary=False)
    at = pq.ParquetFile(path).metadata.row_group(0).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[at : at + 30] = bytes(30)
    path.write_bytes(content)
    with pytest.raises(OSError):
        pq.read_table(path, columns=["image"])
    assert owners(str(path), 3, 6).client.tolist() == CLIENTS


def test_a_limit_leaves_everybody_the_kept_of_their_examples(tmp_path: Path) -> None:
    config = DataConfig(partition="file", partition_file=write(tmp_path / "who.npy", CLIENTS), min_examples=1)
    kept = data_of(4, train_rows=np.array([0, 1, 3, 4]), train_total=6)
    assert [part.tolist() for part in from_file(config, 3, kept).parts] == [[1, 3], [2], [0]]
    kept = data_of(2, train_rows=np.array([0, 1]), train_total=6)
    with pytest.raises(DataError, match=r"client 1 would hold 0 examples.*lower data\.min_examples, or change .*who"):
        from_file(config, 3, kept)


def test_a_run_takes_it_from_the_whole_set(tmp_path: Path) -> None:
    clients = np.arange(10_000) // 5_000
    fields = ["data.partition=file", f"data.partition_file={write(tmp_path / 'who.npy', clients)}", "data.limit=50"]
    config = RunConfig.from_dict({}, [*fields, "federation.clients=2", "data.min_examples=1"])
    data = datasets.load(config.data, 0)
    scenario = scenarios.build(config, data)
    assert data.train_rows is not None
    for client, part in enumerate(scenario.held):
        assert set(data.train_rows[part] // 5_000) == {client}
    assert sum(map(len, scenario.held)) == 50


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.one_of(
        st.lists(st.tuples(st.integers(-2, 8), st.integers(-2, 4)), max_size=9),
        st.tuples(st.permutations(range(6)), st.lists(st.integers(0, 4), min_size=6, max_size=6)).map(
            lambda pair: list(zip(*pair, strict=True))
        ),
    ),
    kind=st.sampled_from(["parquet", "csv"]),
)
def test_any_rows_are_a_partition_or_refused(tmp_path: Path, rows: list[tuple[int, int]], kind: str) -> None:
    examples, clients = [row[0] for row in rows], [row[1] for row in rows]
    arrays = (pa.array(clients, pa.int64()), pa.array(examples, pa.int64()))
    where = write(tmp_path / f"who.{kind}", *(arrays if kind == "parquet" else (clients, examples)))
    there = sorted(set(clients))
    right = sorted(examples) == list(range(6)) and len(there) == 3 and there[0] >= 0
    if right:
        found = owners(where, 3, 6)
        assert [there[client] for client in found.client[examples]] == clients
        assert found.names == (() if there == [0, 1, 2] else tuple(map(str, there)))
    else:
        with pytest.raises(DataError, match=f"who.{kind}"):
            owners(where, 3, 6)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.parquet", {"client": [0, 1, 1]}, r"names 2 clients \(0, 1\), not 3; set federation.clients=2"),
        ("a.parquet", {"client": [0, -1, 1]}, "row 1: client -1 is below 0"),
        ("a.parquet", {"client": [0, 1]}, "names 2 clients in a row, but there are 3"),
        ("a.parquet", {"client": [0, None, 1]}, "row 1: there is no client"),
        ("a.parquet", {"client": [0.0, 1.5, 1.0]}, "column client, row 1: client 1.5 is no whole number"),
        ("a.parquet", {"client": [[0], [1], [2]]}, "column client: list.*, neither whole numbers nor words"),
        ("a.parquet", {"owner": [0, 1, 1]}, "has the columns owner; it needs client"),
        ("a.parquet", {"client": [0, 1, 1], "example": [0, 3, 1]}, "row 1: example 3 is none of 0 to 2"),
        ("a.parquet", {"client": [0, 1, 1], "example": [0, 2, 0]}, "row 2: example 0 has a client already"),
        ("a.parquet", {"client": [0, 1], "example": [0, 2]}, r"no client for example 1 \(1 of 3 are missing\)"),
        ("a.csv", "client,example\n0,0\n1,1\n0,x\n", "column example, row 2: example x is no whole number"),
        ("a.csv", 'client\n0\n" "\n1\n', "column client, row 1: there is no client"),
        ("a.csv", "client,client\n0,0\n1,1\n", "has 2 columns that are called client"),
        ("a.csv", "", "a.csv is not a readable .csv file: it is empty"),
        ("a.csv", "example,client\n0,0\n1\n2,1\n", "a.csv is not a readable .csv file: row 1 has 1 fields, not 2"),
        ("a.npy", np.zeros((3, 1), int), "a.npy is not a readable .npy file: it is no vector"),
        ("a.npy", np.array([0, 0.5, 1]), "row 1: client 0.5 is no whole number"),
        ("a.npy", np.array([0, None, 1]), "a.npy is not a readable .npy file"),
        ("a.npy", b"junk", "a.npy is not a readable .npy file"),
        ("a.parquet", b"junk", "a.parquet is not a readable .parquet file"),
        ("a.txt", "0\n1\n1\n", "none of .parquet, .csv, .csv.gz, .npy"),
    ],
)
def test_faults_are_named_with_file_and_row(tmp_path: Path, name: str, content: Any, message: str) -> None:
    path = tmp_path / name
    if isinstance(content, dict):
        pq.write_table(pa.table(content), path)
    elif isinstance(content, np.ndarray):
        np.save(path, content, allow_pickle=True)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=f"{name}.*{message.removeprefix(name)}") as caught:
        owners(str(path), 3, 3)
    assert "\n" not in str(caught.value)


def test_the_configuration_says_what_a_file_needs(tmp_path: Path) -> None:
    for fields in (["data.partition=file"], ["data.partition_file=who.npy"]):
        with pytest.raises(ConfigError, match=r"data\.partition_file"):
            RunConfig.from_dict({}, fields)
    both = ["data.partition=file", f"data.partition_file={tmp_path / 'who.npy'}"]
    with pytest.raises(ConfigError, match=r"data\.partition: the scenario exclusive"):
        RunConfig.from_dict({}, [*both, "forget.scenario=exclusive"])
    with pytest.raises(DataError, match=r"data\.partition_file: there is no file"):
        datasets.find(RunConfig.from_dict({}, both).data)
