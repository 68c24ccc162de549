"""Make results/reproductions from packed runs; with --run, run a study first.

    python -m scripts.results.reproductions [STUDY ...]
    python -m scripts.results.reproductions --run --form short STUDY data.root=FOLDER
    python -m scripts.results.reproductions --pack FOLDER --form full STUDY

A study that was stopped is resumed by the same command.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from optbench.common.files import replace_text
from optbench.figures.save import save
from scripts import ROOT
from scripts.results import packed
from scripts.results.reproductions import checks, figures, frames, page, studies

FORM_FILE = "form.json"


def main(words: list[str]) -> int:
    """Run and pack the asked studies, and make their pages and the index."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="STUDY|KEY=VALUE")
    parser.add_argument("--run", action="store_true", help="run the studies first")
    parser.add_argument("--form", choices=studies.FORMS, default="short", help="default: short")
    parser.add_argument("--pack", type=Path, help="a folder of finished runs of the one study")
    parser.add_argument("--results-dir", type=Path, default=ROOT / "results" / "sweeps")
    asked = parser.parse_args(words)
    chosen = [studies.load(name) for name in asked.names if "=" not in name]
    others = [word for word in asked.names if "=" in word]
    if (asked.run or asked.pack) and not chosen:
        parser.error("name a study")
    if asked.pack and len(chosen) != 1:
        parser.error("--pack takes one study")
    for study in chosen:
        folder = asked.pack
        if asked.run:
            folder = studies.run(study, asked.form, asked.results_dir.resolve(), others)
        if folder is not None:
            keep(study, folder, asked.form)
    known = [studies.load(name) for name in studies.names()]
    results = [made(study) for study in known if study.table.exists()]
    for result in results:
        if not chosen or result.study in chosen:
            replace_text(result.study.folder / "README.md", page.page(result))
            print(f"{result.study.name}: {result.verdict}")
    replace_text(studies.OUT / "README.md", page.index(results))
    return 0


def keep(study: studies.Study, folder: Path, form: str) -> None:
    """Pack the runs of a finished study, with the form that they are of."""
    packed.pack(folder, study.table)
    replace_text(study.folder / FORM_FILE, json.dumps({"form": form}) + "\n")


def made(study: studies.Study) -> page.Result:
    """Judge a study by its packed runs, and draw its figure."""
    with tempfile.TemporaryDirectory() as where:
        folder = Path(where)
        packed.unpack(study.table, folder)
        ours, published = frames.ours(study, folder), frames.published(study)
        records = sorted(folder.glob("*/run.json"))
        machine = page.machine_of(json.loads(records[0].read_text("utf-8")))
        seconds = frames.seconds(folder)
        if "drift" in study.spec:
            drift = figures.draw_drift(frames.drift(study, folder))
            save(drift, study.folder, "drift", ("png",))
    form = json.loads((study.folder / FORM_FILE).read_text("utf-8"))["form"]
    if form == "short" and "short_series" in study.spec:
        published = published[published["series"].isin(study.spec["short_series"])]
    found = checks.judge(study.spec, ours, published)
    other: list[checks.Check] = []
    if reading := study.spec.get("other_reading"):
        moved = published.assign(
            x=published["x"] + reading["shift"] - study.spec["published"]["shift"]
        )
        other = checks.judge(study.spec, ours, moved)
    save(figures.draw(study.spec["draw"], ours, published), study.folder, "figure", ("png",))
    word = checks.verdict(found, fit=study.spec.get("fit", False))
    places = checks.crossings(study.spec, ours, published)
    return page.Result(study, form, found, word, len(records), seconds, machine, other, places)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
