"""Fill in the pages of course and concepts with verdicts and numbers from committed files.

    python -m scripts.results.course

In a page of docs/ a block stands between `<!-- KIND NAME -->` and `<!-- end -->`. A test compares
the committed pages with what this script writes. `scripts.results.course_figures` draws.
"""

import re
from pathlib import Path

import pandas as pd

from optbench.analysis.claims import judge
from scripts import ROOT
from scripts.results import claims, trajectories
from scripts.results.captions import words_of
from scripts.results.concept_tables import TABLES

COURSE = ROOT / "docs" / "course"
CONCEPTS = ROOT / "docs" / "concepts"
BLOCK = re.compile(r"<!-- (claim|scene|yaml|verdict|table) (\S+) -->\n.*?<!-- end -->", re.S)
SCENE_COLUMNS = ["optimizer", "steps_to_minimum", "steps_settled", "distance", "overshoot", "loss"]
FADING_COLUMNS = ["optimizer", "last_to_first_step", "effective_step", "loss"]
NEEDED_FOR = {  # data that do not come along
    "wine": "It needs scikit-learn, which has the data: `pip install 'optbench[datasets]'`.",
    "diamonds": "It needs a table, which `scripts/fetch-data diamonds` gets.",
}
WORD_OF_KEY = "search:"  # of an optimizer's YAML, from which its search space follows


def main() -> None:
    """Write every page with blocks anew."""
    for path in pages():
        path.write_text(filled(path), "utf-8")


def pages() -> list[Path]:
    """Return the pages that may have blocks."""
    return [*sorted(COURSE.glob("*.md")), *sorted(CONCEPTS.glob("*.md"))]


def filled(path: Path) -> str:
    """Return the text of a page, with its blocks made anew."""
    return BLOCK.sub(
        lambda found: f"<!-- {found[1]} {found[2]} -->\n\n{block(*found.groups())}\n\n<!-- end -->",
        path.read_text("utf-8"),
    )


def block(kind: str, name: str) -> str:
    """Return the text of a block."""
    if kind == "claim":
        return claim(name)
    if kind == "scene":
        return scene(name)
    if kind == "table":
        return TABLES[name]()
    if kind == "verdict":
        return pairs(ROOT / name)
    text = (ROOT / name).read_text("utf-8")
    return f"```yaml\n# {name}\n{text.partition(WORD_OF_KEY)[0].rstrip()}\n```"


def claim(name: str) -> str:
    """Return what was claimed, the figure, what was measured, and the verdict."""
    study = claims.study(name)
    if not (claims.OUT / f"{name}.csv").exists():
        said = " ".join(study["claim"]["text"].split())
        unjudged = f"`study=claims/{name}` has not been judged yet. This runs and judges it:"
        return f"*Claimed:* {said}\n\n{unjudged}\n\n    {claims.command(name)}"
    rows = pd.read_csv(claims.OUT / f"{name}.csv")
    verdict = judge.CLAIM_SENTENCES[judge.verdict_of(list(rows["word"]))]
    numbers = f"[All numbers](../../results/claims/README.md#{name})"
    warned = ", and what speaks against them" if rows["warnings"].notna().any() else ""
    yaml = (claims.STUDIES / f"{name}.yaml").read_text("utf-8").rstrip()
    return "\n".join(
        [
            f"*Claimed:* {' '.join(study['claim']['text'].split())}", "",
            f"**{verdict}**", "",
            *picture(name),
            f"*Measured* (medians over {seeds(rows)} seeds{best_note(rows)}):", "",
            *(f"- {text}" for text in rows["text"]), "",
            f"{numbers}{warned}. To repeat it:", "",
            f"    {claims.command(name)}", "",
            *needs(yaml),
            f"<details><summary>The study: conf/study/claims/{name}.yaml</summary>", "",
            f"```yaml\n{yaml}\n```", "",
            "</details>",
        ]
    )  # fmt: skip


def seeds(rows: pd.DataFrame) -> str:
    """Return the number of seeds of a claim's comparisons."""
    return " to ".join(str(n) for n in sorted({rows["n"].min(), rows["n"].max()}))


def needs(yaml: str) -> list[str]:
    """Return the lines on data of a study that do not come along."""
    found = re.search(r"override /dataset: (\w+)", yaml)
    return [NEEDED_FOR[found[1]], ""] if found and found[1] in NEEDED_FOR else []


def best_note(rows: pd.DataFrame) -> str:
    """Return how a best setting was chosen, or "" if none was."""
    texts = " ".join(rows["text"])
    note = "; a best setting has the fewest diverged runs, and of those the best mean"
    sure = "; p is the largest over the other side's settings" if "least sure" in texts else ""
    return f"{note}{sure}" if "; best " in texts else ""


def scene(name: str) -> str:
    """Return the paths on a function of two variables, and what was expected of them."""
    asked = trajectories.SCENES[name]
    table = pd.read_csv(trajectories.OUT / f"{name}.csv")
    columns = FADING_COLUMNS if name == "fading" else SCENE_COLUMNS
    gif = f"../../results/trajectories/{name}.gif"
    return "\n".join(
        [
            f"    python -m optbench trajectories {asked.words}", "",
            *picture(name),
            f"The same [as an animation]({gif}).", "",
            *trajectories.shown(table, columns), "",
            *trajectories.judged(asked, table),
        ]
    )  # fmt: skip


def picture(name: str) -> list[str]:
    """Return the lines of a figure with its text alternative."""
    drawn, folder = COURSE / "figures" / f"{name}.png", "figures"
    if not drawn.exists():  # as the study drew it
        drawn, folder = claims.OUT / f"{name}.png", "../../results/claims"
    return [
        f"![{words_of(drawn, f'What was measured for the claim {name}')}]({folder}/{name}.png)",
        "",
    ]


def pairs(path: Path) -> str:
    """Return the table of a study's verdict, the first of the file."""
    text = path.read_text("utf-8")
    return text[text.index("| problem |") :].partition("\n\n")[0]


if __name__ == "__main__":
    main()
