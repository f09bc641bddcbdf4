"""Data as people have them: files of a split, and labels, are read as docs/data.md says, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fused_ray.config import RunConfig
from fused_ray.errors import DataError
from tests.brought.pictures import PNG, brought, built, encoded, load, refusal, write

# --- files of a split ----------------------------------------------------------------------------------------

HUB = "train-0000{}-of-00002-{}.parquet".format


FIRST, SECOND = HUB(0, "0a1b2c3d4e5f6071"), HUB(1, "9f8e7d6c5b4a3021")


TEST = "test-00000-of-00001-5555666677778888.parquet"


def placed(root: Path, *names: str) -> None:
    """Training files of four images, the i-th filled with i, and test files of one."""
    for number, name in enumerate(names):
        training = "train" in name
        cell = encoded(np.full((2, 3), number, np.uint8))
        write(root / name, [cell] * (4 if training else 1), [0, 1, 0, 1] if training else [0])


@pytest.mark.parametrize(
    ("names", "note"),
    [
        ((FIRST, SECOND, TEST), ""),
        (("train.parquet", "validation.parquet"), "validation"),
        (("train.parquet", "valid-00000-of-00001.parquet"), "valid"),
        (("train.parquet", "val.parquet"), "val"),
        (("train.parquet", "dev.parquet"), "dev"),
        (("train.parquet", "test.parquet", "dev.parquet", "validation.parquet"), ""),
        (("data/train.parquet", "data/dev.parquet", "data/validation.parquet"), "validation"),
        (("default/train/0000.parquet", "default/train/0001.parquet", "default/test/0000.parquet"), ""),
        (("default/train/0000.parquet", "default/validation/0000.parquet"), "validation"),
        (("train/part-a.parquet", "train/part-b.parquet", "test/part-a.parquet"), ""),
        (("data/train/0000.parquet", "data/test/0000.parquet", "data/._train-0.parquet"), ""),
        (("train.parquet", "test.parquet", "other/train.parquet"), ""),
    ],
)
def test_files_are_found_where_hubs_and_people_put_them(tmp_path: Path, names: tuple[str, ...], note: str) -> None:
    placed(tmp_path, *names)
    data = load(tmp_path)
    training = [
        number for number, name in enumerate(names) if "train" in name and "other" not in name and "._" not in name
    ]
    assert data.train_images[:, 0, 0, 0].tolist() == [number for number in training for _ in range(4)]
    wanted = note or "test"
    assert data.test_images[0, 0, 0, 0] == next(n for n, name in enumerate(names) if wanted in name)
    assert data.notes == ((f"there is no split called test: {note} is the test set",) if note else ())


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((FIRST, TEST), f"lacks shard 00001 of 2 beside {FIRST}"),
        ((SECOND, TEST), "lacks shard 00000 of 2"),
        (
            (FIRST, HUB(0, "11112222"), SECOND, TEST),
            f"train more than once, as after two uploads ({FIRST}, train-00000",
        ),
        (("train-00000-of-00001-0a1b.parquet", "train-00000-of-00001-9f8e.parquet", TEST), "as after two uploads"),
        (("train.parquet", "test-00000-of-00001-0a.parquet", "test-00000-of-00001-9f.parquet"), "a shard of test more"),
        ((FIRST, SECOND, "train-00000-of-00001-0a1b.parquet", TEST), "mixes files that do not belong together"),
        ((FIRST, SECOND, "train.parquet", TEST), "mixes files"),
        ((FIRST, SECOND, "train-00002-of-00002.parquet", TEST), "holds more shards of train than the 2 they say"),
        (("default/train/0000.parquet", "default/train/0002.parquet", TEST), "lacks shard 00001 of 3"),
        (("train.parquet", "data/train.parquet", TEST), "train more than once (train.parquet and data/train.parquet)"),
        (("train.parquet", "train/0000.parquet", TEST), "(train.parquet and train/0000.parquet); keep one"),
        (("a/train/0000.parquet", "b/train/0000.parquet", TEST), "(a/train/0000.parquet and b/train/0000.parquet)"),
        (("Train.parquet", "mnist-train.parquet", TEST), "no train-*.parquet; there is Train.parquet, mnist-train"),
        (
            ("train.parquet", "holdout.parquet"),
            "no test-*.parquet (nor validation-*, valid-*, val-*, dev-*); there is h",
        ),
        (("train.parquet", "old/test.parquet"), "no test-*.parquet"),
        ((), "has no train-*.parquet; there is nothing"),
    ],
)
def test_files_that_are_missing_or_there_twice_are_refused(tmp_path: Path, names: tuple[str, ...], said: str) -> None:
    placed(tmp_path, *names)
    message = refusal(tmp_path)
    assert message.startswith(f"data.root: {tmp_path} ")
    assert said in message


def test_a_folder_that_is_not_there_is_no_empty_one(tmp_path: Path) -> None:
    assert (
        refusal(tmp_path / "photos")
        == f"data.root: {tmp_path / 'photos'} has no train-*.parquet; there is no such folder"
    )


def test_an_empty_shard_has_nothing_to_say(tmp_path: Path) -> None:
    placed(tmp_path, FIRST, SECOND, TEST)
    pq.write_table(pa.table({"image": pa.nulls(0), "label": pa.nulls(0)}), tmp_path / FIRST)
    assert load(tmp_path).train_images[:, 0, 0, 0].tolist() == [1] * 4
    pq.write_table(pa.table({"image": pa.nulls(0)}), tmp_path / SECOND)
    assert refusal(tmp_path) == f"{tmp_path}: the training set is empty"


def test_shards_may_be_written_by_different_programs(tmp_path: Path) -> None:
    placed(tmp_path, FIRST, SECOND, TEST)
    columns = {"label": pa.array([1, 0], pa.uint8()), "img": pa.array([PNG, PNG], pa.large_binary())}
    pq.write_table(pa.table(columns), tmp_path / SECOND)
    assert load(tmp_path).train_labels.tolist() == [0, 1, 0, 1, 1, 0]
    pq.write_table(pa.table({"image": [PNG, PNG], "label": ["cat", "dog"]}), tmp_path / SECOND)
    assert f"{FIRST}, column label: numbers, but {tmp_path}/{SECOND}, column label has words" in refusal(tmp_path)


# --- labels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "expected", "names"),
    [
        pytest.param(["dog", "cat", "dog"], [1, 0, 1], ("cat", "dog"), id="words"),
        pytest.param([" dog", "cat ", "dog"], [1, 0, 1], ("cat", "dog"), id="spaces"),
        pytest.param(["猫", "[dog]", "猫"], [1, 0, 1], ("[dog]", "猫"), id="signs"),
        pytest.param(["2", "0", "1.0"], [2, 0, 1], ("0", "1", "2"), id="numbers as text"),
        pytest.param([2.0, 0.0, 1.0], [2, 0, 1], ("0", "1", "2"), id="floats"),
        pytest.param([True, False, True], [1, 0, 1], ("0", "1"), id="true and false"),
        pytest.param(pa.array(["b", "a", "b"]).dictionary_encode(), [1, 0, 1], ("a", "b"), id="categories"),
        pytest.param(pa.array([b"b", b"a", b"b"]), [1, 0, 1], ("a", "b"), id="words as bytes"),
        pytest.param(pa.array([1, 0, 1], pa.decimal128(3, 1)), [1, 0, 1], ("0", "1"), id="decimals"),
        pytest.param(pa.array([1, 0, 1], pa.uint64()), [1, 0, 1], ("0", "1"), id="uint64"),
    ],
)
def test_labels_however_they_are_written(
    tmp_path: Path, labels: Any, expected: list[int], names: tuple[str, ...]
) -> None:
    data = brought(tmp_path, [PNG] * 3, pa.array(labels))
    assert (data.train_labels.tolist(), data.class_names, data.classes) == (expected, names, len(names))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        pytest.param([0, None, 1], "row 1: there is no label", id="null"),
        pytest.param(["a", None, "b"], "row 1: there is no label", id="null word"),
        pytest.param(["a", " ", "b"], "row 1: there is no label", id="blank"),
        pytest.param([0.0, float("nan"), 1.0], "row 1: there is no label", id="nan"),
        pytest.param([0.0, 0.5, 1.0], "row 1: label 0.5 is no whole number", id="half"),
        pytest.param([0.0, float("inf"), 1.0], "row 1: label inf is no whole number", id="inf"),
        pytest.param([0, -1, 1], "row 1: -1 is no class; there are only 4 examples", id="negative"),
        pytest.param(["0", "-1", "1"], "row 1: -1 is no class", id="negative as text"),
        pytest.param([0, 31_337, 1], "row 1: 31337 is no class", id="an id"),
        pytest.param(pa.array([0, 2**64 - 1, 1], pa.uint64()), "holds numbers that are too large", id="beyond int64"),
        pytest.param([[0], [1], [0, 1]], "list<", id="several"),
        pytest.param(pa.array([1, 2, 3], pa.date32()), "date32[day], neither whole numbers nor words", id="dates"),
        pytest.param(pa.array([b"\xff", b"a", b"b"]), "is not text in UTF-8", id="no text"),
    ],
)
def test_labels_that_are_none_are_named(tmp_path: Path, labels: Any, said: str) -> None:
    write(tmp_path / "train.parquet", [PNG] * 3, pa.array(labels))
    write(tmp_path / "test.parquet", [PNG], [0])
    message = refusal(tmp_path)
    assert message.startswith(f"{tmp_path}/train.parquet, column label")
    assert said in message


def test_words_beside_names_are_their_places(tmp_path: Path) -> None:
    feature = {"label": {"_type": "ClassLabel", "names": ["dog", "cat"]}}
    meta = {"huggingface": json.dumps({"info": {"features": feature}})}
    for labels in (["cat", "dog"], ["cat", "cow"]):
        for split in ("train", "test"):
            table = pa.table({"image": [PNG, PNG], "label": labels}).replace_schema_metadata(meta)
            pq.write_table(table, tmp_path / f"{split}.parquet")
        if labels[1] == "dog":
            assert load(tmp_path).train_labels.tolist() == [1, 0]
    assert "column label, row 1: cow is no class; 2 classes have other names" in refusal(tmp_path)


def test_classes_that_nobody_can_learn_are_said(tmp_path: Path) -> None:
    data = brought(tmp_path, [PNG] * 9, [1, 3, 1, 3, 8, 8, 1, 3, 8])
    assert data.classes == 9
    assert data.notes == ("6 of 9 classes have no training example: 0, 2, 4, 5, ..., 7",)


def test_labels_that_count_from_one_leave_nothing_of_class_0(tmp_path: Path) -> None:
    for split, count in (("train", 20), ("test", 2)):
        write(tmp_path / f"{split}.parquet", [PNG] * count, np.arange(count) % 2 + 1)
    own = ["data.name=parquet", f"data.root={tmp_path}", "federation.clients=2", "model.factory=own:net"]
    with pytest.raises(DataError, match="nothing to forget: no client holds an example of class 0;"):
        built(RunConfig.from_dict({}, own))
    assert built(RunConfig.from_dict({}, [*own, "forget.classes=[1]"])).views["fa"].labels.tolist() == [1]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    placed(tmp_path, "train.parquet", "test.parquet")
    table = pq.read_table(tmp_path / "train.parquet")
    pq.write_table(table.append_column("label", table["label"]), tmp_path / "train.parquet")
    assert "train.parquet has 2 columns that are called label; keep one" in refusal(tmp_path)
