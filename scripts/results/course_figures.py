"""Draw the figures of the course, a column wide, from committed tables alone.

    python -m scripts.results.course_figures [NAME...] [--first FOLDER]

A claim's figure is drawn from results/claims/runs/NAME.csv.xz, a scene's from
results/trajectories/paths/NAME.csv. The caption in words is written beside each. `--first` keeps
the sweep of docs/getting-started.md as the table from which its figure is drawn.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from optbench.analysis.comparison import Options
from optbench.analysis.table import RunFiles
from optbench.commands.trajectories import parse
from optbench.common.text import show
from optbench.figures import style
from optbench.figures.save import save
from optbench.report import claim_files
from optbench.report.draw import draw_all
from optbench.trajectories.contours import still
from optbench.trajectories.descent import Trajectory
from scripts import ROOT
from scripts.results import claims
from scripts.results.packed import pack, unpack
from scripts.results.pictures import save_small
from scripts.results.trajectories import PATHS, SCENES

OUT = ROOT / "docs" / "course" / "figures"
FIRST = ROOT / "results" / "getting_started" / "runs.csv.xz"  # the sweep of docs/getting-started.md
MIN_ROWS_OF_CURVES = 3  # evaluations of a run


def main() -> None:
    """Draw the named figures, or all of them."""
    names = [*drawable_claims(), *SCENES, "first"]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--first", type=Path, metavar="FOLDER", help="keep the runs of this sweep")
    asked = parser.parse_args()
    if asked.first:
        pack(asked.first, FIRST)
    for name in asked.names or names:
        draw(name)
        print(OUT / f"{name}.png", flush=True)


def drawable_claims() -> list[str]:
    """Return the claims whose runs are committed."""
    return [path.name.split(".")[0] for path in sorted(claims.RUNS.glob("*.csv.xz"))]


def draw(name: str, out: Path = OUT) -> None:
    """Draw one figure; write NAME.png and NAME.txt into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as base:
        if name in SCENES:
            (picture,) = (path for path in draw_scene(name, Path(base)) if path.suffix == ".png")
        else:
            picture = draw_runs(name, Path(base))
        save_small(picture, out / f"{name}.png")
        shutil.copyfile(picture.with_suffix(".txt"), out / f"{name}.txt")


def draw_runs(name: str, base: Path) -> Path:
    """Draw a figure of a sweep's runs; return the picture."""
    folder, drawn = base / name, base / "drawn"
    drawn.mkdir()
    unpack(FIRST if name == "first" else claims.RUNS / f"{name}.csv.xz", folder)
    asked = {} if name == "first" else claims.study(name)["claim"]
    if isinstance(options := asked.get("figure"), dict):
        files = RunFiles([folder])
        with style.use(columns=1):
            claim_files.draw(drawn, files.table(), claim_files.layers_of(files), options)
    else:
        rows = RunFiles([folder]).table().groupby("run", observed=True).size()
        # two points of each line say less than the final values of all seeds
        lines = "curves" if rows.max() >= MIN_ROWS_OF_CURVES else "finals"
        kind = "learning_rate" if options else lines
        draw_all([folder], drawn, Options(kinds=(kind,), columns=1, formats=("png",)))
    (picture,) = drawn.glob("*.png")
    return picture


def draw_scene(name: str, out: Path) -> list[Path]:
    """Draw the paths of a scene; return the files."""
    asked = parse([*SCENES[name].words.split(), f"out={out}"])
    rows = pd.read_csv(PATHS / f"{name}.csv")
    paths = [
        Trajectory(show(label), show(label).split()[0], part[["x", "y"]].to_numpy(),
                   np.asarray(part["loss"]))
        for label, part in rows.groupby("optimizer", sort=False)
    ]  # fmt: skip
    with style.use(columns=1):
        return save(still(asked.function, paths), out, name, ("png",))


if __name__ == "__main__":
    main()
