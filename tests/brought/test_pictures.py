"""Pictures and arrays as people have them: each kind is read as docs/data.md says, or refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFile

from fused_ray.config import DataConfig
from fused_ray.data import datasets
from fused_ray.errors import DataError
from fused_ray.types import ImageData
from tests.brought.pictures import GREY, PNG, brought, encoded, refusal, write

COLOUR = np.stack([GREY, GREY + 1, GREY + 2], -1)


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
