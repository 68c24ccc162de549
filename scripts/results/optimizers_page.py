"""Write docs/optimizers.md: the optimizers of the field by name, and all classes of a package.

    python -m scripts.results.optimizers_page

The numbers are those of results/zoo and of results/reliability/package-optimizers.csv.
"""

import csv
import re
import tempfile
from collections.abc import Mapping
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from optbench import load_runs
from optbench.config.comments import read
from scripts import ROOT
from scripts.results.packed import unpack
from scripts.tables import markdown

CONF = ROOT / "conf" / "optimizer"
ZOO = ROOT / "results" / "zoo"
CLASSES = ROOT / "results" / "reliability" / "package-optimizers.csv"
OUT = ROOT / "docs" / "optimizers.md"
PACKAGES = {  # Python name: PyPI name and licence, as its metadata state it
    "pytorch_optimizer": ("pytorch-optimizer", "Apache-2.0"),
    "schedulefree": ("schedulefree", "Apache-2.0"),
    "prodigyopt": ("prodigyopt", "MIT"),
    "optbench": ("torch", "BSD-3-Clause"),
}
NAMED = (
    "lion", "soap", "shampoo", "sophia", "prodigy", "adan", "ademamix", "adopt", "lamb", "mars",
    "schedulefree_adamw", "schedulefree_sgd", "sam", "adahessian", "muon",
)  # fmt: skip
MANNERS = {  # beside the schedule and the groups
    "prodigy": "lr stays 1, and is one for all groups",
    "schedulefree_adamw": "evaluates an average of its weights",
    "schedulefree_sgd": "evaluates an average of its weights",
    "sam": "evaluates the loss twice a step",
    "adahessian": "differentiates gradients again",
    "sophia": "differentiates gradients again, every update_period steps",
    "ademamix": "is given the number of steps",
}
INTRODUCTION = """# Optimizers of the field

<!-- Made by `python -m scripts.results.optimizers_page`: change that script. -->

    pip install 'optbench[optimizers]'
    python -m optbench -m optimizer=lion,soap,adamw schedule=authors 'seed=range(8)'

installs three packages and compares two of their optimizers with AdamW. `schedule=authors`
gives each optimizer the schedule that its authors ask for.

    python -m optbench --help optimizer=soap
    python -m optbench groups optimizer=soap

show the settings of one, with the sources of its defaults, and which part of the model has which
rule.

## By name

State is in bytes for each parameter of the MLP 784-128-10 (8 for Adam in float32); a dash
stands where an optimizer differentiates gradients and is not timed alone. All of them passed
the same tests as torch's own: they descend on a quadratic and on Rosenbrock's function, halve
the loss of a small MLP, CNN and GPT, give the same curve for the same seed, resume within an
epoch bit for bit, and work under a schedule, with parameter groups (Prodigy with one rate),
clipping and averaging. The losses are medians over the seeds at the end of
[results/zoo](../results/zoo/README.md), at published defaults.

"""
OTHERS = """
## Any other class

    python -m optbench optimizer._target_=pytorch_optimizer.Tiger optimizer.lr=0.001

takes any class by its path, with its own defaults for what is not given ([how a class is
called](extending.md#an-optimizer)). Each class of pytorch-optimizer {version} ({licence})
trained a small network for 40 steps, held against a plain loop: *equal* to the last bit;
*resumed* in the middle, or *restarts* and says so; or *refused* in the words on the right.
State is in bytes for each parameter of that network. [All six
packages](../results/reliability/README.md) have been tried so.

"""


def main() -> None:
    """Write the page."""
    OUT.write_text(page(), "utf-8")


def page() -> str:
    """Return the page as text."""
    distribution = PACKAGES["pytorch_optimizer"]
    others = OTHERS.format(version=metadata.version(distribution[0]), licence=distribution[1])
    return "\n".join(
        [INTRODUCTION.rstrip("\n"), "", *named(), others.rstrip("\n"), "", *classes(), ""]
    )


def named() -> list[str]:
    """Return the table of the optimizers that have a YAML."""
    measured = {study: zoo(study) for study in ("zoo", "zoo_gpt")}
    rows = []
    for name in NAMED:
        content = yaml.safe_load((CONF / f"{name}.yaml").read_text("utf-8"))
        package, licence = PACKAGES[content["_target_"].partition(".")[0]]
        mlp, gpt = (measured[study].loc[name] for study in ("zoo", "zoo_gpt"))
        rows.append(
            {
                "name": f"`{name}`",
                "what": what(name),
                "package": f"{package}, {licence}",
                "state": "-" if pd.isna(mlp["state"]) else f"{mlp['state']:.1f}",
                "gradients a step": f"{mlp['gradients']:.3g}",
                "manners": manners(name, content),
                "test loss, MLP": f"{mlp['test_loss']:.3f}",
                "test loss, GPT": f"{gpt['test_loss']:.3f}",
            }
        )
    return markdown(rows)


def what(name: str) -> str:
    """Return a YAML's comment up to the paper."""
    comment = read(CONF / f"{name}.yaml")[0]
    found = re.match(r".*?\d{4}\)", comment)
    return found[0] if found else comment


def manners(name: str, content: Mapping[str, Any]) -> str:
    """Return what an optimizer asks for, beside its gradients."""
    found = [f"{content['schedule']['name']} schedule"] if "schedule" in content else []
    if "groups" in content or name == "muon":
        found.append("matrices apart from the rest")
    return "; ".join([*found, *([MANNERS[name]] if name in MANNERS else [])])


def zoo(study: str) -> pd.DataFrame:
    """Return the medians of a sweep's last rows by optimizer: test_loss, gradients, state."""
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base) / study
        unpack(ZOO / f"{study}.csv.xz", folder)
        runs = load_runs(folder)
    last = runs.sort_values("epoch").groupby(["optimizer", "seed"]).tail(1)
    last = last.assign(gradients=last["gradients"] / last["step"])
    last = last.rename(columns={"state_bytes_per_parameter": "state"})
    return last.groupby("optimizer")[["test_loss", "gradients", "state"]].median()


def classes() -> list[str]:
    """Return the table of all classes of pytorch-optimizer."""
    package = import_module("pytorch_optimizer")
    with CLASSES.open(encoding="utf-8", newline="") as file:
        found = [row for row in csv.DictReader(file) if row["package"] == "pytorch-optimizer"]
    found.sort(key=lambda row: row["class"].lower())
    rows = []
    for row in found:
        text = (getattr(package, row["class"], None).__doc__ or "").strip().partition("\n")[0]
        rows.append(
            {
                "class": f"`{row['class']}`",
                "what": text.rstrip("."),
                "outcome": row["outcome"],
                "state": row["state_bytes"] or "-",
                "gradients a step": row["gradients"] or "-",
                "manner, or why": row["sentence"] or row["manner"].partition(";")[0],
            }
        )
    return [line.replace("<", "&lt;") for line in markdown(rows)]


if __name__ == "__main__":
    main()
