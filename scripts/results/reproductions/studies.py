"""The studies of conf/study/reproductions: what each claims to rebuild, and its commands."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from scripts import ROOT

STUDIES = ROOT / "conf" / "study" / "reproductions"
OUT = ROOT / "results" / "reproductions"
FORMS = ("full", "short")


class Study(NamedTuple):
    """A study's name and its YAML, before Hydra composes the configuration."""

    name: str
    config: dict[str, Any]

    @property
    def spec(self) -> dict[str, Any]:
        """Return what the study rebuilds: the YAML's `reproduction`."""
        found: dict[str, Any] = self.config["reproduction"]
        return found

    @property
    def folder(self) -> Path:
        """Return the folder of the study's page."""
        return OUT / self.name

    @property
    def table(self) -> Path:
        """Return the packed runs."""
        return self.folder / "runs.csv.xz"

    def arguments(self, form: str) -> list[str]:
        """Return the words of the command that runs a form of the study."""
        words = [str(word) for word in self.spec.get("short", [])] if form == "short" else []
        return ["-m", f"study=reproductions/{self.name}", *words]

    def command(self, form: str) -> str:
        """Return the command as it is typed."""
        return "python -m optbench " + shlex.join(self.arguments(form))


def names() -> list[str]:
    """Return the names of all studies."""
    return sorted(path.stem for path in STUDIES.glob("*.yaml"))


def load(name: str) -> Study:
    """Return a study. Raises ValueError for a name that no study has."""
    if name not in names():
        raise ValueError(f"no study reproductions/{name}; there are: {', '.join(names())}")
    return Study(name, yaml.safe_load((STUDIES / f"{name}.yaml").read_text("utf-8")))


def run(study: Study, form: str, results: Path, others: list[str]) -> Path:
    """Run a form of the study, or resume it; return the folder of its runs.

    others: further words of the command, such as data.root=FOLDER.
    """
    name = f"reproductions-{study.name}-{form}"
    words = [*study.arguments(form), *others, f"results_dir={results}", f"name={name}"]
    print(f"$ {study.command(form)}", flush=True)
    subprocess.run([sys.executable, "-m", "optbench", *words], cwd=ROOT, check=True)
    return results / name
