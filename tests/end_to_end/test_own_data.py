"""A new user brings own data: the steps of docs/data.md as they are written there, and mistakes on the way."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fused_ray import load_run
from fused_ray.cli.app import main
from fused_ray.config import DataConfig
from fused_ray.data.datasets import load
from tests.docs.blocks import blocks
from tests.docs.follow import Hasty, follow
from tests.docs.table import row_of


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of somebody who did what the page says."""
    folder = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        follow("docs/data.md", folder, Hasty(small={}))
    return folder


def test_the_page_ends_in_a_finished_run(followed: Path) -> None:
    result = load_run(followed / "runs" / "shapes").result
    assert result["reversible"]
    assert result["data"]["shape"] == [3, 24, 24]
    assert result["data"]["class_names"] == ["square", "disc", "bar"]
    assert len(result["data"]["mean"]) == len(result["data"]["std"]) == 3


def test_what_the_page_forgets_is_forgotten_as_by_retraining(followed: Path) -> None:
    result = load_run(followed / "runs" / "shapes").result
    metrics = result["metrics"]
    before, after, retrained = (metrics[when] for when in ("before", "after", "retrained"))
    assert (before["ra"], before["fa"]) == (1, 1)
    assert (retrained["ra"], retrained["fa"]) == (1, 0)
    assert after == retrained
    assert result["verdict"] in ("forgotten", "shallow")


def test_a_folder_of_pictures_becomes_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, (split, kind) in enumerate(product(("train", "test"), ("cat", "dog"))):
        place = tmp_path / "pictures" / split / kind
        place.mkdir(parents=True)
        Image.new("RGB", (5, 4), (number, 0, 0)).save(place / "1.PNG")
        (place / "notes.txt").touch()
    (block,) = (block for block in blocks("docs/data.md") if block.text.startswith("# from pictures/"))
    monkeypatch.chdir(tmp_path)
    Hasty().python(block, row_of(block))
    data = load(DataConfig(name="parquet", root="pets"), 0)
    assert data.class_names == ("cat", "dog")
    assert (data.train_images[:, 0, 0, 0].tolist(), data.test_images[:, 0, 0, 0].tolist()) == ([0, 1], [2, 3])
    assert (data.train_labels.tolist(), data.test_labels.tolist()) == ([0, 1], [0, 1])


def test_the_run_can_be_restored_without_the_data(followed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("restore", str(followed / "runs" / "shapes")) == 0
    assert "M_r is back bit for bit" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (["forget.classes=[3]"], "forget.classes: there is no class 3; parquet has 0 to 2"),
        (["data.root=nowhere"], "data.root: nowhere has no train-*.parquet"),
        (["data.label_column=kind"], "data.label_column: shapes/train-00000-of-00001.parquet has no column kind"),
        (
            ["data.partition=file", "data.partition_file=who.csv", "federation.clients=3"],
            "who.csv names 4 clients (artist_0,",
        ),
        (["data.root=broken"], "broken/test-00000-of-00001.parquet, column label, row 2"),
        (["federation.clients=100"], "federation.clients: 100 clients of at least 10"),
    ],
)
def test_mistakes_are_one_line(
    followed: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    settings: list[str],
    named: str,
) -> None:
    monkeypatch.chdir(followed)
    Path("broken").mkdir(exist_ok=True)
    for split in ("train", "test"):
        table = pq.read_table(f"shapes/{split}-00000-of-00001.parquet")
        if split == "test":
            labels = table["label"].to_pylist()
            table = table.set_column(1, "label", pa.array([*labels[:2], 3, *labels[3:]]))
        pq.write_table(table, f"broken/{split}-00000-of-00001.parquet")
    given = [part for setting in settings for part in ("--set", setting)]
    assert command("data", "shapes.yaml", *given) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("fused-ray: ")
    assert "\n" not in said
    assert named in said
