"""The tables of docs/concepts/, computed from committed results."""

import json
import math
from collections import defaultdict
from statistics import median

import pandas as pd

from optbench.common.text import number
from scripts import ROOT
from scripts.results.packed import read
from scripts.tables import markdown

RESULTS = ROOT / "results"
STUDY = RESULTS / "fair_comparison" / "runs.csv.xz"
LEAST_TRIALS = 20  # of a search that is whole
FALSE_CLAIMS = RESULTS / "reliability" / "false-claims.csv"

Search = tuple[float, float]  # the lowest validation loss of a search, and its learning rate


def luck() -> str:
    """Return what single searches of the fair comparison found, a row per optimizer."""
    searches = whole_searches()
    common = set.intersection(*(set(found) for found in searches.values()))
    firsts = [min(searches, key=lambda name: searches[name][each]) for each in sorted(common)]
    rows = [
        {
            "optimizer": name,
            "lowest val loss: median [range]": spread([loss for loss, _ in found.values()]),
            "learning rate chosen": ends([lr for _, lr in found.values()]),
            f"first, of {len(common)} searches": firsts.count(name),
        }
        for name, found in sorted(searches.items())
    ]
    return "\n".join(markdown(rows))


def whole_searches() -> dict[str, dict[int, Search]]:
    """Return the best trial of each whole search of the MLP, by optimizer and search."""
    trials: dict[tuple[str, int], list[Search]] = defaultdict(list)
    for path, text in read(STUDY):
        if not path.startswith("trials/") or not path.endswith("run.json"):
            continue
        record = json.loads(text)
        config = record["config"]
        if config["model"]["name"] == "mlp" and record["status"] in ("completed", "diverged"):
            loss = (record["summary"] or {}).get("val_loss")
            value = math.inf if record["status"] == "diverged" or loss is None else float(loss)
            trials[record["name"], config["repeat"]].append((value, config["optimizer"]["lr"]))
    found: dict[str, dict[int, Search]] = defaultdict(dict)
    for (name, repeat), made in trials.items():
        if len(made) >= LEAST_TRIALS:
            found[name][repeat] = min(made)
    most = max(map(len, found.values()))
    return {name: each for name, each in found.items() if len(each) == most}


def spread(values: list[float]) -> str:
    """Return median and range."""
    return f"{number(median(values))} [{number(min(values))}, {number(max(values))}]"


def ends(values: list[float]) -> str:
    """Return the least and the largest value with two digits."""
    return f"{min(values):.2g} to {max(values):.2g}"


def false_claims() -> str:
    """Return how often anything is claimed of optimizers that do not differ."""
    frame = pd.read_csv(FALSE_CLAIMS)
    rows = [
        {
            "compared": compared,
            "wrongly claimed, at most": f"{part['claims'].max():.1%}",
            "of which results": part["results"].iloc[int(part["claims"].argmax())],
        }
        for compared, part in frame.groupby("compared", sort=False)
    ]
    return "\n".join(markdown(rows))


TABLES = {"luck": luck, "false_claims": false_claims}
