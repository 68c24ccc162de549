"""The commands on the pages of the documentation, and ways to try them without training."""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from optbench.config.comments import GROUPS
from optbench.config.compose import combinations, compose_run
from optbench.formats.groups import choices
from scripts import ROOT
from scripts.site.result_pages import result_pages

# with `python -m`, in a shell's loop, or after another word; without what follows a `>`
BEFORE = r"(?:    |\$ |srun )(?:python -m |.*(?: |\.venv/bin/))?"
COMMAND = re.compile(rf"^{BEFORE}optbench (\S[^>\n]*?)(?: >.*|'\")?$", re.M)
FILE = re.compile(r"```\w+\n(# @package _global_\n)?# (\S+\.(?:yaml|py))\n(.*?)```", re.S)
TABLE = re.compile(r"```csv\n(.*?)```", re.S)


def pages() -> list[Path]:
    """Return the pages of the site."""
    docs = list((ROOT / "docs").rglob("*.md"))
    return sorted([*docs, *result_pages(ROOT), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])


def commands(paths: Sequence[Path]) -> dict[str, Path]:
    """Return each command of the pages, without the word `optbench`, and its first page."""
    found: dict[str, Path] = {}
    for path in paths:
        text = path.read_text("utf-8").replace("\\\n", "")
        for command in COMMAND.findall(text):
            found.setdefault(" ".join(command.split()), path)
    return found


def write_files(folder: Path) -> None:
    """Write the example files of all pages into a folder, and the table of one."""
    for path in pages():
        text = path.read_text("utf-8")
        for head, name, rest in FILE.findall(text):
            content = head + rest
            if not name.startswith("conf/"):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(content, "utf-8")
        for content in TABLE.findall(text):
            (folder / "table.csv").write_text(content, "utf-8")


def compose_first(words: Sequence[str]) -> None:
    """Compose the first run of a sweep's words, and look up all other choices that they name.

    Raises UserError for a configuration that a run would refuse.
    """
    plain = [word for word in words if not word.startswith("-")]
    if len(plain) == 1 and plain[0].startswith("study=claims/"):  # tests/config composes these
        assert plain[0].removeprefix("study=") in choices("study")
        return
    if "hydra/sweeper=tuned" in plain:
        plain = [word for word in plain if "search." not in word]  # of the search, not of a run
    values = [[one for (one,) in combinations(*setting(word))] for word in plain]
    for each in values:
        for group, _, name in (value.partition("=") for value in each[1:]):
            assert group not in GROUPS or name in choices(group), (group, name)
    names = {one.partition("=")[2] for each in values for one in each if one[:10] == "optimizer="}
    compose_run(list(of_optimizer([each[0] for each in values], names)))


def setting(word: str) -> tuple[dict[str, str], str]:
    """Return a word as the arguments of `combinations`."""
    key, _, value = word.partition("=")
    return {key: value}, word


def of_optimizer(words: Sequence[str], names: set[str]) -> Iterator[str]:
    """Yield the words without settings of the other optimizers of the sweep."""
    chosen = next((word[10:] for word in words if word.startswith("optimizer=")), None)
    for word in words:
        owner = word.partition("=")[0].lstrip("+").partition(".")[0]
        if owner not in names or owner == chosen:
            yield word


def split(command: str) -> list[str]:
    """Return a command's words, as a shell reads them."""
    return shlex.split(command, comments=True)
