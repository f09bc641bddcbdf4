"""Data as people have them: each kind is read as docs/data.md says, or refused in one line."""

from __future__ import annotations

import gzip
import io
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
from PIL import Image, ImageFile

from fused_ray import load_run, run
from fused_ray.cli.app import main
from fused_ray.config import DataConfig, RunConfig
from fused_ray.data import datasets, partition_file, partitions, scenarios
from fused_ray.errors import ConfigError, DataError, FusedRayError
from fused_ray.seeding import generator, permutation
from fused_ray.types import ImageData, Scenario

CELL = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
GREY = np.array([[10, 20, 30], [40, 50, 60]], np.uint8)
COLOUR = np.stack([GREY, GREY + 1, GREY + 2], -1)


def encoded(pixels: Any, kind: str = "PNG", **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels))
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


PNG = encoded(GREY)


def write(path: Path, cells: list[Any], labels: Any, **more: Any) -> None:
    """One file of a split; cells are bytes, or what else stands in the column."""
    cells = [{"bytes": cell, "path": None} if isinstance(cell, bytes) else cell for cell in cells]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": pa.array(cells, CELL), "label": labels, **more}), path)


def brought(root: Path, cells: list[Any], labels: Any = None, test: list[Any] | None = None, **more: Any) -> ImageData:
    """A data set with these training images, and by default the first of them as its test set."""
    write(root / "train.parquet", cells, np.arange(len(cells)) % 2 if labels is None else labels, **more)
    write(
        root / "test.parquet",
        test or cells[:1],
        (np.arange(1) if labels is None else labels[:1]),
    )
    return load(root)


def load(root: Path, **fields: Any) -> ImageData:
    return datasets.load(DataConfig(name="parquet", root=str(root), **fields), 0)


def refusal(*given: Any, **fields: Any) -> str:
    """What is said of a data set that is refused."""
    with pytest.raises(FusedRayError) as caught:
        brought(*given, **fields) if len(given) > 1 else load(*given, **fields)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- pictures ----------------------------------------------------------------------------------------------

# How a camera stores an upright image, by the orientation that it then notes (EXIF 2.3, tag 0x0112).
STORED = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.T,
    6: lambda a: np.rot90(a, 1),  # stored a quarter turn to the left, shown turned to the right
    7: lambda a: np.rot90(a, 2).T,
    8: lambda a: np.rot90(a, -1),
}


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize(("kind", "tolerance"), [("PNG", 0), ("JPEG", 2)])  # JPEG rounds
def test_a_photo_comes_upright_however_the_camera_was_held(tmp_path: Path, kind: str, tolerance: int) -> None:
    upright = np.kron(GREY, np.ones((8, 8), np.uint8))
    cells = [encoded(stored(upright), kind, exif=exif(turn)) for turn, stored in STORED.items()]
    found = brought(tmp_path, cells).train_images
    assert found.shape == (8, 1, 16, 24)
    assert abs(found.astype(int) - upright).max() <= tolerance


def test_exif_that_cannot_be_read_says_nothing(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    whole = exif(6).tobytes()
    broken = [whole[:-9], b"Exif\0\0MM\0!junk", b"Exif\0\0"]
    found = brought(tmp_path, [PNG, *(encoded(GREY, exif=tags) for tags in broken)])
    assert (found.train_images == GREY).all()
    assert not recwarn.list


def animation() -> bytes:
    return encoded(GREY, save_all=True, append_images=[Image.fromarray(255 - GREY)])


def sixteen_bits_of_colour() -> bytes:
    """Pillow writes none: a PNG of one pixel by hand."""
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    pixel = zlib.compress(b"\0" + bytes(6))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")


def with_alpha(alpha: int) -> Image.Image:
    return Image.merge("RGBA", [*Image.fromarray(COLOUR).split(), Image.new("L", (3, 2), alpha)])


@pytest.mark.parametrize(
    ("cell", "pixels", "note"),
    [
        pytest.param(encoded(Image.fromarray(COLOUR).quantize(6)), COLOUR, "", id="palette"),
        pytest.param(encoded(with_alpha(0)), COLOUR, "1 of the training images have transparency", id="RGBA"),
        pytest.param(encoded(with_alpha(255).convert("LA")), None, "have transparency, which is left out", id="LA"),
        pytest.param(encoded(Image.new("1", (3, 2), 1)), np.full((2, 3, 3), 255), "", id="black and white"),
        pytest.param(encoded(Image.new("CMYK", (3, 2)), "JPEG"), np.full((2, 3, 3), 255), "", id="CMYK"),
        pytest.param(animation(), GREY, "several pictures in one (an animation, say), of which the first", id="APNG"),
        pytest.param(
            encoded(COLOUR * 0, "MPO", save_all=True, append_images=[Image.fromarray(COLOUR)]),
            COLOUR * 0,
            "several pictures in one",
            id="MPO",
        ),
    ],
)
def test_unusual_pictures_by_their_rules(tmp_path: Path, cell: bytes, pixels: Any, note: str) -> None:
    data = brought(tmp_path, [cell, cell], [0, 1])
    found = data.train_images[0].transpose(1, 2, 0)
    if pixels is not None:
        assert abs(found.squeeze().astype(int) - pixels).max() == 0
    assert note.replace("1 of", "2 of") in " ".join(data.notes)
    assert bool(note) == bool(data.notes)


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        pytest.param(encoded(np.full((2, 3), 300, np.uint16)), "more than 8 bits (I;16)", id="16 bits"),
        pytest.param(sixteen_bits_of_colour(), "more than 8 bits (RGB)", id="16 bits of colour"),
        pytest.param(encoded(COLOUR, "JPEG")[:-40], "a damaged image: ", id="truncated"),
        pytest.param(PNG[:45] + b"junk" + PNG[49:], "a damaged image: ", id="broken bytes"),
        pytest.param(encoded(GREY, "BMP"), "not readable as PNG or JPEG", id="BMP"),
        pytest.param(GREY.tobytes(), "not readable as PNG or JPEG", id="pixels without a format"),
        pytest.param(None, "there is no image", id="null"),
        pytest.param({"bytes": None, "path": "a.png"}, "named by its path is not fetched", id="a path"),
        pytest.param(encoded(np.zeros((9, 3), np.uint8)), "[9, 3] differs from [2, 3] (height, width)", id="large"),
        pytest.param(encoded(GREY, exif=exif(6)), "[3, 2] differs from [2, 3]", id="turned"),
    ],
)
def test_one_bad_picture_among_many_is_named(tmp_path: Path, cell: Any, said: str) -> None:
    message = refusal(tmp_path, [PNG] * 700 + [cell] + [PNG] * 200)
    assert message.startswith(f"{tmp_path}/train.parquet, column image, row 700: ")
    assert said in message


def test_half_a_picture_is_none_whatever_the_process_has_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert "row 1: a damaged image: " in refusal(tmp_path, [PNG, PNG[:-26]])
    assert ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("first", [0, 1, 300])
def test_grey_among_colour_becomes_colour_and_is_said(tmp_path: Path, first: int) -> None:
    cells = [PNG] * first + [encoded(COLOUR)] + [PNG] * 5
    data = brought(tmp_path, cells, test=[PNG])
    as_colour = np.broadcast_to(GREY, (3, 2, 3))
    for row, image in enumerate(data.train_images):
        assert (image == (COLOUR.transpose(2, 0, 1) if row == first else as_colour)).all()
    assert (data.test_images == as_colour).all()
    assert data.notes == (
        f"{first + 5} of the training images are grey and were made colour, as others there are",
        "the test images are grey and were made colour, as the training images are",
    )


def test_images_as_lists_or_names_are_refused_with_what_to_do(tmp_path: Path) -> None:
    write(tmp_path / "test.parquet", [PNG], [0])
    for cells, kind in (([[[1, 2]]], "list<"), (["a.png"], "string"), ([3], "int64"), ([{"path": "a"}], "struct<")):
        pq.write_table(pa.table({"image": cells, "label": [0]}), tmp_path / "train.parquet")
        said = refusal(tmp_path)
        assert f"column image: {kind}" in said
        assert "store each as PNG or JPEG bytes" in said


@pytest.mark.slow
def test_more_than_fits_into_memory_is_refused(tmp_path: Path) -> None:
    """A million photos of 169 megapixels are more than a 64-bit machine can address."""
    cell = encoded(Image.new("L", (13_000, 13_000)))
    assert "column image does not fit into memory" in refusal(tmp_path, [cell] + [None] * 1_000_000)


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


# --- arrays --------------------------------------------------------------------------------------------------

ARRAYS = {
    "train_images": np.arange(4 * 6, dtype=np.uint8).reshape(4, 2, 3),
    "train_labels": np.array([0, 1, 1, 0]),
    "test_images": np.zeros((1, 2, 3), np.uint8),
    "test_labels": np.array([1]),
}


def arrays(path: Path, pack: Any = np.savez, **changed: Any) -> ImageData:
    pack(path, **{**ARRAYS, **changed})
    return datasets.load(DataConfig(name="npz", root=str(path)), 0)


@pytest.mark.parametrize("kind", ["u1", "i8", ">i4", "f4", "f8", "f2"])
@pytest.mark.parametrize("pack", [np.savez, np.savez_compressed])
def test_whole_pixels_of_any_type_are_bytes(tmp_path: Path, kind: str, pack: Any) -> None:
    data = arrays(tmp_path / "own.npz", pack, train_images=ARRAYS["train_images"].astype(kind))
    assert data.train_images.dtype == np.uint8
    assert data.train_images[:, 0].tolist() == ARRAYS["train_images"].tolist()


def test_grey_arrays_beside_colour(tmp_path: Path) -> None:
    data = arrays(tmp_path / "own.npz", test_images=np.zeros((1, 2, 3, 3), np.uint8))
    assert data.train_images.shape == (4, 3, 2, 3)
    assert "the training images are grey and were made colour, as the test images are" in data.notes


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (np.array(["dog", "cat", "cat", "dog"]), ("cat", "dog")),
        (np.array([b"dog", b"cat", b"cat", b"dog"]), ("cat", "dog")),
        (np.array([1.0, 0.0, 0.0, 1.0]), ("0", "1")),
        (np.array([[True], [False], [False], [True]]), ("0", "1")),
        (np.array([1, 0, 0, 1], ">i2"), ("0", "1")),
    ],
)
def test_labels_of_arrays_however_they_are_written(tmp_path: Path, labels: Any, names: tuple[str, ...]) -> None:
    data = arrays(tmp_path / "own.npz", train_labels=labels, test_labels=labels[:1])
    assert (data.train_labels.tolist(), data.class_names) == ([1, 0, 0, 1], names)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"train_images": np.linspace(0, 1, 24).reshape(4, 2, 3)}, "train_images: float64 from 0.0 to 1.0, not whole"),
        ({"train_images": np.eye(8)[:, :6].reshape(8, 2, 3)[:4]}, "shares of 1 multiplied by 255"),
        ({"train_images": np.full((4, 2, 3), -1)}, "int64 from -1 to -1, not whole numbers from 0 to 255"),
        ({"train_images": np.full((4, 2, 3), 256)}, "from 256 to 256"),
        ({"train_images": np.full((4, 2, 3), np.nan)}, "from nan to nan"),
        ({"train_images": np.ones((4, 2, 3), bool)}, "train_images: bool from True to True"),
        ({"train_images": np.full((4, 2, 3), "a")}, "train_images: <U1, not uint8"),
        ({"train_images": np.zeros((4, 6), np.uint8)}, "[4, 6] is none of [n, h, w]"),
        ({"train_images": np.full((4, 2, 3), None)}, "is not a readable .npz file of plain arrays: Object arrays"),
        ({"train_labels": np.array([0, 1, None, 1])}, "is not a readable .npz file of plain arrays: Object arrays"),
        ({"train_labels": np.eye(4)}, "train_labels: [4, 4], not [n] or [n, 1]"),
        ({"train_labels": np.array([0, 0.5, 1, 1])}, "train_labels, row 1: label 0.5 is no whole number"),
        ({"train_labels": np.array(["a", "", "b", "b"])}, "train_labels, row 1: there is no label"),
        ({"train_labels": np.zeros(4, "M8[s]")}, "train_labels: timestamp[s], neither whole numbers nor words"),
        ({"train_labels": np.zeros(4, complex)}, "train_labels holds no labels"),
        ({"train_labels": np.zeros(4, "i4,f4")}, "train_labels"),
        ({"train_labels": np.array(["a", "b", "b", "a"])}, "test_labels: numbers, but"),
        ({"class_names": np.array(["cat"])}, "train_labels, row 1: 1 is no class; 1 classes have names"),
    ],
)
def test_arrays_that_are_none_are_named(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError) as caught:
        arrays(tmp_path / "own.npz", **changed)
    assert str(caught.value).startswith(f"{tmp_path}/own.npz")
    assert said in str(caught.value)


def test_arrays_of_other_names_are_listed(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", x_train=ARRAYS["train_images"], y_train=ARRAYS["train_labels"])
    with pytest.raises(
        DataError, match="has the arrays x_train, y_train; it lacks train_images, train_labels, test_im"
    ):
        datasets.load(DataConfig(name="npz", root=str(tmp_path / "own.npz")), 0)


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


def built(config: RunConfig) -> Scenario:
    return scenarios.build(config, datasets.load(config.data, config.seed))


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
