"""Files as they never should be: whatever lies in one, it is read, or refused in one line.

Hypothesis makes data sets and partitions in Parquet, NumPy's formats and CSV, of any types, sizes and names, and then
overwrites, cuts or lengthens some of their bytes.
"""

from __future__ import annotations

import gzip
import io
import json
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fused_ray.config import RunConfig
from fused_ray.data import datasets, scenarios
from fused_ray.errors import FusedRayError


class Maker:
    """Draws what is brought: as it should be, but for up to two kinds of fault."""

    FAULTS = ("bytes", "type", "name", "rows", "metadata", "places", "header", "text")

    def __init__(self, drawn: st.DataObject, folder: Path) -> None:
        self.draw, self.folder = drawn.draw, folder
        self._faults = self.draw(st.sets(st.sampled_from(self.FAULTS), max_size=2))

    def faulty(self, kind: str) -> bool:
        return kind in self._faults and self.draw(st.booleans())

    def one(self, *values: Any) -> Any:
        return self.draw(st.sampled_from(values))

    def write(self, name: str, content: bytes) -> Path:
        """A file, or what is left of it."""
        if self.faulty("bytes"):
            at, new = self.draw(st.integers(0, len(content))), self.draw(st.binary(max_size=9))
            content = content[:at] + new + self.one(b"", content[at:], content[at + len(new) :])
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_bytes(content)
        return self.folder / name


# --- Parquet -----------------------------------------------------------------------------------------------


def encoded(mode: str, size: tuple[int, int], kind: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    Image.new(mode, size, 7).save(sink, kind, **options)
    return sink.getvalue()


TURNED = Image.Exif()
TURNED[0x0112] = 6
GOOD = [encoded(mode, (3, 2), "PNG") for mode in ("L", "RGB")]
PICTURES = [
    *(encoded(mode, (3, 2), "PNG") for mode in ("RGBA", "LA", "P", "1", "I;16")),
    *(encoded(mode, (2, 3), "JPEG", exif=TURNED) for mode in ("L", "RGB", "CMYK")),
    *(encoded("L", (2, 3), kind) for kind in ("PNG", "BMP", "TIFF")),
]
TEXT = st.text(max_size=6)
NAMES = st.one_of(st.sampled_from(["image", "label", "client", "example"]), TEXT)
CELLS = st.one_of(st.none(), st.binary(max_size=9), st.sampled_from([*GOOD, *PICTURES, GOOD[0][:-9], GOOD[1][:60]]))
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
ODD: list[tuple[pa.DataType, Any]] = [
    (STRUCT, st.one_of(st.none(), CELLS.map(lambda cell: {"bytes": cell, "path": None}))),
    (pa.large_binary(), CELLS),
    (pa.string(), st.one_of(st.none(), TEXT, st.sampled_from(["0", "1.0", " a", "007", "-1"]))),
    (pa.dictionary(pa.int8(), pa.string()), st.one_of(st.none(), TEXT)),
    (pa.int64(), st.one_of(st.integers(0, 3), st.integers(-(2**63), 2**63 - 1), st.none())),
    (pa.uint64(), st.one_of(st.integers(0, 3), st.integers(0, 2**64 - 1))),
    (pa.float64(), st.one_of(st.integers(0, 3).map(float), st.floats(), st.none())),
    (pa.float16(), st.sampled_from([0.0, 1.0, 0.5]).map(np.float16)),
    (pa.bool_(), st.booleans()),
    (pa.decimal128(5, 1), st.integers(0, 3)),
    (pa.timestamp("s"), st.integers(0, 9)),
    (pa.list_(pa.int64()), st.lists(st.integers(0, 3), max_size=2)),
    (pa.null(), st.none()),
]
USUAL: dict[str, list[tuple[pa.DataType, Any]]] = {
    "image": [
        (STRUCT, st.sampled_from(GOOD).map(lambda cell: {"bytes": cell, "path": None})),
        (pa.binary(), st.sampled_from([GOOD[0], *PICTURES[:4]])),
    ],
    "label": [(pa.int64(), st.integers(0, 1)), (pa.string(), st.sampled_from(["cat", "dog"]))],
    "client": [(pa.string(), st.sampled_from(["anna", "ben"])), (pa.int64(), st.integers(0, 1))],
}
KINDS = st.fixed_dictionaries({"_type": st.just("ClassLabel"), "names": st.lists(TEXT, max_size=4)})
FEATURES = st.dictionaries(NAMES, st.one_of(TEXT, KINDS), max_size=2)
METADATA = st.one_of(TEXT, FEATURES.map(lambda found: json.dumps({"info": {"features": found}})))


def table(make: Maker, way: int, *usual: str) -> bytes:
    """A Parquet file with the usual columns, written in one of two ways."""
    rows = make.draw(st.integers(0, 9)) if make.faulty("rows") else 8
    names, arrays = [], []
    for name in usual:
        kind, values = make.one(*ODD) if make.faulty("type") else USUAL[name][way]
        names.append(make.draw(NAMES) if make.faulty("name") else name)
        arrays.append(pa.array(make.draw(st.lists(values, min_size=rows, max_size=rows)), kind))
    made, sink = pa.table(arrays, names), io.BytesIO()
    if make.faulty("metadata"):
        made = made.replace_schema_metadata({"huggingface": make.draw(METADATA)})
    pq.write_table(made, sink, row_group_size=make.one(3, 8))
    return sink.getvalue()


PLACES = [
    *("train.parquet", "test.parquet", "valid.parquet", "data/train.parquet", "train/0002.parquet"),
    *(f"default/{split}/0000.parquet" for split in ("train", "test")),
    *(f"{split}-0000{n}-of-00002{tail}.parquet" for split in ("train", "test") for n in (0, 1) for tail in ("", "-0a")),
    "train-00002-of-00002.parquet",
]


def parquet_set(make: Maker) -> list[str]:
    names = make.one(PLACES[:2], PLACES[5:7], [PLACES[7], PLACES[9], PLACES[2]])
    if make.faulty("places"):
        names = make.draw(st.lists(st.sampled_from(PLACES), max_size=4, unique=True))
    way = make.one(0, 1)
    for name in names:
        make.write(name, table(make, way, "image", "label", "client"))
    column = make.one([], ["data.partition=file", "data.client_column=client"])
    return ["data.name=parquet", f"data.root={make.folder}", *column]


# --- NumPy -------------------------------------------------------------------------------------------------

SHAPES = [(8, 2, 3), (8, 2, 3, 3), (8, 3, 2, 3), (8, 3, 2, 2, 1), (8,), (8, 1), (0,), (), (7, 2)]
TYPES = ["u1", "i8", ">i4", "u8", "f4", "f2", "?", "U3", "S3", "c8", "M8[s]", "O", "i4,f4"]
HEADERS = [
    *("{", "[" * 99, "\\", "{'descr': 'i8', 'fortran_order': 0, 'shape': (9, 'x')}"),
    *(f"{{'descr': '<i8', 'fortran_order': False, 'shape': ({size},)}}" for size in (2**40, 2**70, -1, True)),
]


def vector(make: Maker, shape: tuple[int, ...], kind: str, largest: int = 1, sound: bool = False) -> bytes:
    """An .npy file."""
    shape = make.one(*SHAPES) if not sound and make.faulty("rows") else shape
    kind = make.one(*TYPES) if not sound and make.faulty("type") else kind
    sink = io.BytesIO()
    np.save(sink, np.resize(np.arange(2) * largest, shape).astype(kind), allow_pickle=True)
    if not sound and make.faulty("header"):
        text = make.one(*HEADERS).encode() + b"\n"
        return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    return sink.getvalue()


def npz_set(make: Maker) -> list[str]:
    arrays = {"train_images": ((8, 2, 3), "u1", 200), "train_labels": ((8,), "i8"), "test_labels": ((8,), "f4")}
    arrays |= {"test_images": arrays["train_images"], "class_names": ((2,), "U3")}
    sink, hurt = io.BytesIO(), make.one(*arrays)
    with zipfile.ZipFile(sink, "w", make.one(zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)) as archive:
        for name, about in arrays.items():
            member = make.one("x", "X.npy", f"{name}/", name) if name == hurt and make.faulty("name") else f"{name}.npy"
            archive.writestr(member, vector(make, *about, sound=name != hurt))
    return ["data.name=npz", f"data.root={make.write('own.npz', sink.getvalue())}"]


# --- partitions --------------------------------------------------------------------------------------------

FIELDS = ["anna", " anna", '"ben"', "0", "1.0", "007", "", "NA", "x,y", '"', "\x00", "é"]


def csv(make: Maker) -> bytes:
    clients = [make.one(*FIELDS) if make.faulty("text") else f"w{n % 2}" for n in range(8)]
    head = make.one("example,client", " example, client ", "\ufeffexample,client")
    if make.faulty("name"):
        head = make.one("client,client", "example;client", "example", "")
    rows = make.draw(st.lists(st.integers(0, 9), max_size=9)) if make.faulty("rows") else range(8)
    lines = [head, *(f"{row},{client}" for row, client in zip(rows, clients, strict=False))]
    return make.one("\n", "\r\n", "\r", "\n\n").join(lines).encode("utf-16" if make.faulty("header") else "utf-8")


def partition(make: Maker) -> list[str]:
    """A good data set of eight images, with a partition file."""
    cells = pa.array([{"bytes": GOOD[0], "path": None}] * 8, STRUCT)
    for split in ("train", "test"):
        pq.write_table(pa.table({"image": cells, "label": [0, 1] * 4}), make.folder / f"{split}.parquet")
    made = {
        "parquet": lambda: table(make, make.one(0, 1), "client"),
        "csv": lambda: csv(make),
        "csv.gz": lambda: gzip.compress(csv(make)),
        "npy": lambda: vector(make, (8,), make.one("i8", "U3")),
    }
    kind = make.one(*made)
    where = make.write(f"who.{kind}", made[kind]())
    return ["data.name=parquet", f"data.root={make.folder}", "data.partition=file", f"data.partition_file={where}"]


# --- what comes of it --------------------------------------------------------------------------------------


def outcome(given: list[str]) -> str:
    """What is said, or nothing where the data can be used."""
    settings = ["federation.clients=2", "data.min_examples=1", "model.factory=own:net", "forget.classes=[1]"]
    config = RunConfig.from_dict({}, [*settings, *given])
    try:
        datasets.find(config.data)
        data = datasets.load(config.data, 0)
        scenario = scenarios.build(config, data)
    except FusedRayError as error:
        return str(error)
    assert len(data.train_images) == len(data.train_labels) == sum(map(len, scenario.held)) > 0
    assert data.train_images.shape[1] in (1, 3)
    assert len(data.class_names) == data.classes > data.train_labels.max()
    return ""


def all_are_read_or_refused(brought: Callable[[Maker], list[str]], examples: int) -> None:
    seen: Counter[bool] = Counter()

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.data())
    def attempt(drawn: st.DataObject) -> None:
        with tempfile.TemporaryDirectory() as folder:
            said = outcome(brought(Maker(drawn, Path(folder))))
        assert len(said.splitlines()) <= 1
        seen[bool(said)] += 1

    attempt()
    assert min(seen[True], seen[False]) > examples // 20, seen  # neither is all refused nor all taken


BROUGHT = pytest.mark.parametrize("brought", [parquet_set, npz_set, partition])


@BROUGHT
def test_fifty_files(brought: Callable[[Maker], list[str]]) -> None:
    all_are_read_or_refused(brought, 17)


@pytest.mark.slow
@BROUGHT
def test_five_hundred_files(brought: Callable[[Maker], list[str]]) -> None:
    all_are_read_or_refused(brought, 170)
