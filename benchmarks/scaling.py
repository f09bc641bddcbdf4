"""Runs examples/scale.yaml, writes its tables and pictures into a page, and puts what was measured beside it.

    python benchmarks/scaling.py [docs/scaling.md] [--study runs/scale]

A study that is there is gone on with; of one that is finished, tables and pictures are made anew from its figures.
Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path

from fused_ray import ScaleConfig, load_scale, resume_scale, scale
from fused_ray.studies.display import show_progress
from fused_ray.studies.scaling.directory import ScalingDirectory
from fused_ray.studies.scaling.tables import held_out_errors

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- scaling: begin -->", "<!-- scaling: end -->"
PICTURES = {
    "seconds": "Seconds of a round over clients",
    "efficiency": "Strong and weak efficiency over actors",
    "split": "What the seconds of a round go to",
    "predicted": "Predicted against measured seconds",
}


def made(path: Path) -> ScalingDirectory:
    """The finished study at a path."""
    drawn = "base.output.plots=png"
    if path.exists():
        with show_progress(path, "runs") as listener:
            resume_scale(path, [drawn], listener=listener)
    else:
        scale(ScaleConfig.from_yaml(ROOT / "examples" / "scale.yaml", [f"output.dir={path}", drawn]))
    return load_scale(path)


def lines(study: ScalingDirectory, images: Path) -> Iterator[str]:
    """What stands between the markers; pictures are copied into `images`."""
    about, result = study.read_json("environment.json"), study.result
    packages = about["packages"]
    yield (
        f"{about['processor']}, {about['cores']} cores, Python {about['python']}, torch {packages['torch']}, Ray "
        f"{packages['ray']}, {about['revision']}; {result['done']} runs in {result['seconds'] / 60:.1f} minutes, "
        f"{result['failed']} failed."
    )
    if result["held_out_error"] is not None:
        yield from ("", f"**Errors at the held-out points: {', '.join(held_out_errors(study.made('points')))}.**")
    yield from ("", (study.path / "tables.md").read_text(encoding="utf-8").rstrip())
    for name, title in PICTURES.items():
        if (picture := study.path / "plots" / f"{name}.png").exists():
            shutil.copyfile(picture, images / f"scaling-{name}.png")
            yield from ("", f"![{title}](images/scaling-{name}.png)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", nargs="?", type=Path, default=ROOT / "docs" / "scaling.md", help="a Markdown file")
    parser.add_argument("--study", type=Path, default=Path("runs/scale"), help="where the study goes, or is")
    given = parser.parse_args()
    study = made(given.study)
    images = given.page.parent / "images"
    images.mkdir(exist_ok=True)
    text = "\n".join(lines(study, images))
    shutil.copyfile(study.path / "measured.parquet", given.page.with_suffix(".parquet"))
    before, _, rest = given.page.read_text(encoding="utf-8").partition(BEGIN)
    given.page.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
