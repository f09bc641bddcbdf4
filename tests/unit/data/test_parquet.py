"""Own image data in Parquet: the layouts that are taken, what is read and decoded, and every fault in a file."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fused_ray.config import DataConfig, RunConfig
from fused_ray.data import datasets, parquet, scenarios
from fused_ray.data.parquet_file import ParquetFile
from fused_ray.errors import ConfigError, DataError
from fused_ray.types import ImageData

CELL = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def encoded(pixels: Any, kind: str = "PNG") -> bytes:
    sink = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(sink, kind)
    return sink.getvalue()


def write(
    path: Path,
    cells: list[Any],
    labels: Any,
    image: str = "image",
    label: str = "label",
    features: Any = None,
    **options: Any,
) -> Path:
    """A file of a split; cells are bytes, or what else stands in the column."""
    cells = [{"bytes": cell, "path": None} if isinstance(cell, bytes) else cell for cell in cells]
    table = pa.table({image: pa.array(cells, CELL), label: labels})
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def load(root: Path | str, limit: int | None = None, seed: int = 0, **columns: str) -> ImageData:
    return datasets.load(DataConfig(name="parquet", root=str(root), limit=limit, **columns), seed)


GREY = np.arange(6).reshape(2, 3) * 40
COLOUR = np.arange(18).reshape(2, 3, 3) * 14
PNG = encoded(GREY)
FLAT = [encoded(np.full((2, 3), value)) for value in range(40)]
"""Image i is filled with i."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set of 8 + 4 images; image i is filled with i, its label is i % 4."""
    write(tmp_path / "set" / "train-00000-of-00001.parquet", FLAT[:8], np.arange(8) % 4)
    write(tmp_path / "set" / "test-00000-of-00001.parquet", FLAT[8:12], np.arange(4))
    return tmp_path / "set"


# --- what is read ----------------------------------------------------------------------------------------


def test_images_labels_and_constants_by_hand(folder: Path) -> None:
    data = load(folder)
    assert (data.train_images.dtype, data.train_labels.dtype) == (np.uint8, np.int64)
    assert data.train_images.shape == (8, 1, 2, 3)
    assert data.train_images[:, 0, 1, 2].tolist() == list(range(8))
    assert data.test_images[:, 0, 0, 0].tolist() == [8, 9, 10, 11]
    assert data.train_labels.tolist() == [0, 1, 2, 3] * 2
    assert (data.classes, data.class_names) == (4, ("0", "1", "2", "3"))
    assert (data.mean, data.std) == ((0.5,), (0.5,))


@pytest.mark.parametrize(("kind", "tolerance"), [("PNG", 0), ("JPEG", 4)])  # JPEG rounds
def test_grey_and_colour(tmp_path: Path, kind: str, tolerance: int) -> None:
    colour = np.broadcast_to(np.array([200, 30, 90]), (8, 8, 3))
    for name, pixels, expected in (("grey", np.full((8, 8), 77), [77]), ("colour", colour, [200, 30, 90])):
        for split in ("train", "test"):
            write(tmp_path / name / f"{split}.parquet", [encoded(pixels, kind)], [0])
        found = load(tmp_path / name).train_images
        assert found.shape == (1, len(expected), 8, 8)
        assert found[0, :, 4, 4].tolist() == pytest.approx(expected, abs=tolerance)


def test_rows_columns_and_channels_keep_their_places(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", [encoded(COLOUR)] * 2, pa.array([0, 1], pa.int8()), "img")
    assert load(tmp_path).train_images[1].transpose(1, 2, 0).tolist() == COLOUR.tolist()


def test_images_of_bytes_alone(folder: Path) -> None:
    for split in ("train", "test"):
        path = folder / f"{split}-00000-of-00001.parquet"
        cells = pq.read_table(path)["image"].combine_chunks().field("bytes")
        pq.write_table(pa.table({"image": cells, "label": pq.read_table(path)["label"]}), path)
    assert load(folder).train_images[:, 0, 0, 0].tolist() == list(range(8))


@pytest.mark.parametrize("below", ["", "data/"])
@pytest.mark.parametrize("test", ["test", "validation"])
def test_shards_come_in_order_wherever_they_lie(tmp_path: Path, below: str, test: str) -> None:
    for shard in (2, 0, 1):
        rows = slice(4 * shard, 4 * shard + 4)
        path = tmp_path / f"{below}train-{shard:05d}-of-00003.parquet"
        write(path, FLAT[rows], np.arange(12)[rows] % 3, row_group_size=3)
    write(tmp_path / f"{below}{test}-00000-of-00001.parquet", FLAT[:3], [0, 1, 2])
    for root in (tmp_path, tmp_path.as_uri()):
        data = load(str(root))
        assert data.train_images[:, 0, 0, 0].tolist() == list(range(12))
        assert data.train_labels.tolist() == [0, 1, 2] * 4


def test_validation_is_not_the_test_set_where_there_is_one(folder: Path) -> None:
    write(folder / "validation-00000-of-00001.parquet", FLAT[:1], [0])
    assert len(load(folder).test_labels) == 4


def test_columns_and_class_names_of_the_metadata(tmp_path: Path) -> None:
    features = {"picture": {"_type": "Image"}, "animal": {"_type": "ClassLabel", "names": ["ant", "bee", "cat"]}}
    for split in ("train", "test"):
        write(tmp_path / f"{split}.parquet", FLAT[:2], [0, 1], "picture", "animal", features)
    data = load(tmp_path)
    assert (data.classes, data.class_names) == (3, ("ant", "bee", "cat"))  # a class may be absent
    write(tmp_path / "test.parquet", FLAT[:2], [0, 1], "picture", "animal")  # names are the first file's
    with pytest.raises(DataError, match=r"test\.parquet has the columns picture, animal.*data\.image_column"):
        load(tmp_path)
    assert load(tmp_path, image_column="picture", label_column="animal").class_names == ("ant", "bee", "cat")


def test_the_column_that_is_named_wins(folder: Path) -> None:
    for split in ("train", "test"):
        path = folder / f"{split}-00000-of-00001.parquet"
        table = pq.read_table(path)
        pq.write_table(table.append_column("fine_label", pa.array([1] * len(table))), path)
    assert load(folder).classes == 4
    assert load(folder, label_column="fine_label").train_labels.tolist() == [1] * 8


# --- data.limit ------------------------------------------------------------------------------------------


def test_a_limit_keeps_classes_balanced_and_says_which_rows(folder: Path) -> None:
    data = load(folder, limit=4)
    assert sorted(data.train_labels) == [0, 1, 2, 3]
    rows = data.train_rows
    assert rows is not None
    assert data.train_total == 8
    assert data.train_images[:, 0, 0, 0].tolist() == rows.tolist() == sorted(rows)
    assert len({tuple(load(folder, 4, seed).train_rows) for seed in range(6)}) > 1


def test_only_the_kept_images_are_decoded(folder: Path) -> None:
    kept = load(folder, limit=4).train_rows
    assert kept is not None
    cells = [cell if row in kept else b"broken" for row, cell in enumerate(FLAT[:8])]
    write(folder / "train-00000-of-00001.parquet", cells, np.arange(8) % 4)
    assert np.array_equal(load(folder, limit=4).train_rows, kept)
    with pytest.raises(DataError, match="column image, row"):
        load(folder)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    group=st.integers(1, 5),
    chosen=st.sets(st.integers(0, 35), min_size=1),
)
def test_any_rows_of_any_shards(tmp_path: Path, sizes: list[int], group: int, chosen: set[int]) -> None:
    bounds, files = np.cumsum([0, *sizes]), []
    for start, end in pairwise(bounds):
        path = write(tmp_path / f"{start}", FLAT[start:end], np.arange(end - start), row_group_size=group)
        files.append(ParquetFile(pa.fs.LocalFileSystem(), str(path), path.name))
    split = parquet.read_files(files, files).train
    rows = np.array(sorted(row for row in chosen if row < bounds[-1]), np.int64)
    assert split.images(rows).pixels[:, 0, 0, 0].tolist() == rows.tolist()


# --- faults ----------------------------------------------------------------------------------------------

IMAGE_ROW, LABEL_ROW = "column image, row 1:", "column label, row 1:"
SIXTEEN_BITS = io.BytesIO()
Image.fromarray(np.full((2, 3), 300, np.uint16)).save(SIXTEEN_BITS, "PNG")


@pytest.mark.parametrize(
    ("cells", "labels", "message"),
    [
        pytest.param([PNG, b"not an image"], [0, 1], IMAGE_ROW, id="no image"),
        pytest.param([PNG, None], [0, 1], IMAGE_ROW, id="no cell"),
        pytest.param([PNG, {"bytes": None, "path": "x.png"}], [0, 1], IMAGE_ROW, id="no bytes"),
        pytest.param([PNG, PNG[:-26]], [0, 1], IMAGE_ROW, id="truncated"),
        pytest.param([PNG, PNG[:33] + b"junk" * 9], [0, 1], IMAGE_ROW, id="broken chunks"),
        pytest.param([PNG, encoded(GREY.T)], [0, 1], IMAGE_ROW, id="another size"),
        pytest.param([PNG, encoded(GREY, "BMP")], [0, 1], IMAGE_ROW, id="another format"),
        pytest.param([PNG, SIXTEEN_BITS.getvalue()], [0, 1], IMAGE_ROW, id="16 bits"),
        pytest.param([PNG, PNG], [0, None], LABEL_ROW, id="no label"),
        pytest.param([PNG, PNG], [0, -1], LABEL_ROW, id="a negative label"),
        pytest.param([PNG, PNG], [0, 10**9], LABEL_ROW, id="an id for a label"),
        pytest.param([PNG, PNG], [0.0, 1.5], LABEL_ROW, id="half a label"),
        pytest.param([PNG, PNG], [[0], [1, 2]], "column label: list", id="several labels"),
    ],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_faulty_cells_are_named(folder: Path, cells: list[Any], labels: Any, message: str, split: str) -> None:
    path = write(folder / f"{split}-00000-of-00001.parquet", cells, labels)
    with pytest.raises(DataError) as caught:
        load(folder)
    assert f"{path}, {message}" in str(caught.value)
    assert caught.value.exit_code == 2


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.integers(0, 3000), what=st.binary(min_size=1, max_size=40))
def test_a_damaged_file_is_read_or_named(folder: Path, where: int, what: bytes) -> None:
    """Whatever is overwritten in a file: an error of ours in one line, or a data set of the right shape."""
    path = folder / "train-00000-of-00001.parquet"
    whole = path.read_bytes()
    at = where % len(whole)
    path.write_bytes(whole[:at] + what + whole[at + len(what) :])
    said = ""
    try:
        data = load(folder)
    except DataError as error:
        said = str(error)
    else:
        assert len(data.train_images) == len(data.train_labels) > 0
    finally:
        path.write_bytes(whole)
    assert "\n" not in said


def test_a_label_beyond_the_names_is_named(folder: Path) -> None:
    features = {"label": {"_type": "ClassLabel", "names": ["ant", "bee"]}}
    write(folder / "train-00000-of-00001.parquet", FLAT[:3], [0, 1, 2], features=features)
    with pytest.raises(DataError, match=r"train-00000.*column label, row 2: 2 is no class; 2 classes have names"):
        load(folder)


def test_splits_that_name_their_classes_otherwise_are_refused(folder: Path) -> None:
    for split, names in (("train", ["ant", "bee"]), ("test", ["bee", "ant"])):
        features = {"label": {"_type": "ClassLabel", "names": names}}
        write(folder / f"{split}-00000-of-00001.parquet", FLAT[:2], [0, 1], features=features)
    with pytest.raises(DataError, match=r"test-00000.*named otherwise than those of .*train-00000"):
        load(folder)


def test_files_that_are_none_are_named(folder: Path) -> None:
    path = folder / "train-00000-of-00001.parquet"
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match=rf"{path} is not a readable"):
        load(folder)
    pq.write_table(pa.table({"picture": ["a"], "label": [0]}), path)
    with pytest.raises(DataError, match=r"has the columns picture, label; none is called image or img"):
        load(folder)
    pq.write_table(pa.table({"image": ["a"], "label": [0]}), path)
    with pytest.raises(DataError, match=r"column image: string, not images"):
        load(folder)
    with pytest.raises(DataError, match=r"data\.label_column: .* has no column digit; it has image, label"):
        load(folder, label_column="digit")


def test_folders_that_hold_no_data_set_are_named(folder: Path, tmp_path: Path) -> None:
    for root in (tmp_path / "nowhere", tmp_path.as_uri() + "/nowhere"):
        with pytest.raises(DataError, match=r"data\.root: .*nowhere has no train-\*\.parquet"):
            load(root)
    with pytest.raises(DataError, match=r"data\.root: s4://x is no URI"):
        load("s4://x")
    (folder / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(DataError, match=r"has no test-\*\.parquet \(nor validation-.*there is train-00000"):
        load(folder)


def test_a_data_set_of_one_class_is_refused(folder: Path) -> None:
    for split in ("train", "test"):
        write(folder / f"{split}-00000-of-00001.parquet", FLAT[:2], [0, 0])
    own = ["data.name=parquet", f"data.root={folder}", "federation.clients=2", "data.min_examples=1"]
    for forget in (["forget.classes=[0]"], ["forget.scenario=client", "forget.clients=[0]"]):
        config = RunConfig.from_dict({}, [*own, *forget])
        with pytest.raises(ConfigError, match=r"^data\.root: all labels are of one class"):
            scenarios.build(config, datasets.load(config.data, 0))


def test_pictures_in_folders_and_a_file_for_a_folder_are_told_apart(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^data\.root: .*train-00000-of-00001\.parquet is a file; name the folder"):
        load(folder / "train-00000-of-00001.parquet")
    pictures = tmp_path / "pictures"
    (pictures / "train" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match=r"there is train/; images go into Parquet files first \(docs/data\.md"):
        load(pictures)
    flat = tmp_path / "flat"
    flat.mkdir()
    (flat / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"there is 1\.png; images go into Parquet files first"):
        load(flat)


def test_shards_that_do_not_belong_together_are_refused(folder: Path) -> None:
    (folder / "train-00000-of-00001.parquet").rename(folder / "train-00000-of-00002.parquet")
    with pytest.raises(DataError, match="lacks shard 00001 of 2"):
        load(folder)
    write(folder / "train-00000-of-00001.parquet", FLAT[:1], [0])
    with pytest.raises(DataError, match="mixes files"):
        load(folder)


@pytest.mark.parametrize(("split", "called"), [("train", "training"), ("test", "test")])
def test_an_empty_split_is_refused(folder: Path, split: str, called: str) -> None:
    write(folder / f"{split}-00000-of-00001.parquet", [], pa.array([], pa.int64()))
    with pytest.raises(DataError, match=f"the {called} set is empty"):
        load(folder)


def test_splits_of_different_sizes_are_refused(folder: Path) -> None:
    write(folder / "test-00000-of-00001.parquet", [encoded(GREY.T)], [0])
    with pytest.raises(DataError, match=r"training images are \[1, 2, 3\] .* test images \[1, 3, 2\]"):
        load(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            ["data.partition=pathological", "data.classes_per_client=5"],
            "data.classes_per_client: 5 is more than the 4 classes",
        ),
        (["data.limit=3"], "data.limit"),
        (["federation.clients=9"], "federation.clients: 9 clients .* 8 training examples"),
        (["forget.classes=[4]"], "forget.classes: there is no class 4; parquet has 0 to 3"),
        (["forget.classes=[0,1,2,3]"], "forgetting every class"),
        (["forget.scenario=sample", "forget.target=4"], "forget.target"),
        (["forget.scenario=sample", "forget.trigger=3"], "forget.trigger: 3 pixels .* 2 x 3"),
        (["forget.scenario=sample", "forget.trigger=1", "forget.examples=[8]"], "no example 8"),
        ([], "model.name: lenet takes images of at least 16 x 16 pixels, not 2 x 3"),
    ],
)
def test_what_does_not_fit_the_data_is_said_once_they_are_read(folder: Path, fields: list[str], message: str) -> None:
    own = ["data.name=parquet", f"data.root={folder}", "federation.clients=2", "data.min_examples=1"]
    config = RunConfig.from_dict({}, [*own, *fields])
    with pytest.raises(ConfigError, match=message):
        scenarios.build(config, datasets.load(config.data, 0))


def test_a_model_of_the_users_own_may_take_small_images(folder: Path) -> None:
    own = ["data.name=parquet", f"data.root={folder}", "federation.clients=2", "data.min_examples=1"]
    config = RunConfig.from_dict({}, [*own, "model.factory=mynets:tiny"])
    assert len(scenarios.build(config, datasets.load(config.data, 0)).held) == 2


@pytest.mark.parametrize("name", ["parquet", "npz"])
def test_own_data_need_a_place(name: str) -> None:
    with pytest.raises(ConfigError, match=f"data.root: {name} is your own data"):
        RunConfig.from_dict({}, [f"data.name={name}"])
    with pytest.raises(ConfigError, match=r"data\.image_column: only data.name=parquet"):
        RunConfig.from_dict({}, ["data.image_column=img"])
