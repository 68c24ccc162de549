"""Write docs/configuration.md: every key and every choice, with the comments of conf/.

    python -m scripts.results.configuration_page

A test compares the committed page with what this script writes.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from scripts import ROOT

CONF = ROOT / "conf"
OUT = ROOT / "docs" / "configuration.md"
COMMAND = "python -m scripts.results.configuration_page"
GROUPS = (
    "problem", "model", "dataset", "loss", "initializer", "optimizer", "schedule", "logger",
    "study", "hydra/launcher", "hydra/sweeper",
)  # fmt: skip
OVERLAYS = ("problem", "study")  # set keys of other groups
NOT_SHOWN = ("name", "search", "params")  # of a choice: not set as GROUP.KEY
LINE = re.compile(r"^( *)(?:- )?([\w/]+): ?(.*?)(?: *(?:^|(?<= ))# (.*))?$")

INTRODUCTION = f"""# Configuration

<!-- Made by `{COMMAND}` from the comments in conf/: change those. -->

Every key can be set on the command line, and every key can be swept:

    python -m optbench optimizer=sgd optimizer.lr=0.1 batch_size=32
    python -m optbench -m optimizer=sgd,adam optimizer.lr=0.001,0.01 seed=0,1,2

- `GROUP=NAME` chooses a file of `conf/GROUP/`. Its settings are then set as `GROUP.KEY=VALUE`.
- `-m` sweeps: it runs every combination of the values between commas.
- `-m 'GROUP=glob(*)'` sweeps over all choices of a group, but for those in folders of their own,
  such as `textbook/adam`: name these one by one.
- Quote what the shell would read: `'model.hidden=[256,128]'`, `'logger=[tensorboard,mlflow]'`.
- `+KEY=VALUE` adds a key that the configuration does not have, such as `+optimizer.foreach=true`.
- `--config-dir FOLDER` adds groups and choices of your own ([extending](extending.md)).
- `--cfg job` prints the whole configuration and runs nothing.

## Keys
"""
GROUPS_INTRODUCTION = """
## Groups

A choice in bold is the default. The third column holds the settings of a choice with their
defaults and, in brackets, what they mean or where the default comes from.
"""
NOTES = {
    "problem": """\
A problem sets model, dataset, loss, initializer and the keys of the problem, down to
`epochs`. Each setting can still be changed. See [problems](problems.md).""",
    "dataset": "A function of your own: [extending](extending.md#a-dataset).",
    "initializer": """\
An initializer fills the weights of all linear and convolution layers. `bias` is a
number; `bias=null` leaves torch's.""",
    "optimizer": """\
`conf/optimizer/NAME.yaml` also holds the search space of a
[tuned study](tuned-studies.md). Any class of an installed package serves:
`optimizer._target_=torch.optim.NAdam`. The optimizers of `textbook/` are the published formulas as
plain code.""",
    "logger": """\
Several at once: `'logger=[tensorboard,mlflow]'`. Set as `logger.NAME.KEY=VALUE`. What
each writes, and where: [loggers](files.md#loggers).""",
    "study": """\
A study sets any keys, and what is swept: `python -m optbench -m study=comparison`. For
`claims/...` see [claims](claims.md).""",
    "hydra/launcher": "`basic` is Hydra's own launcher: one run after another, in one process.",
}


class Setting(NamedTuple):
    """One key of a YAML file: its dotted name, value and comment, as they stand there."""

    key: str
    value: str
    comment: str


def read(path: Path) -> tuple[str, list[tuple[str, list[Setting]]]]:
    """Return the first comment of a file, and its settings under the comments that head them."""
    head: list[str] = []
    sections: list[tuple[str, list[Setting]]] = [("", [])]
    parents: list[tuple[int, str]] = []
    for line in path.read_text("utf-8").splitlines():
        text = line.strip()
        settings = sections[-1][1]
        if text.startswith("#"):
            text = text.removeprefix("#").strip()
            if line.startswith(" ") and settings:  # the comment of the line before goes on
                key, value, comment = settings[-1]
                settings[-1] = Setting(key, value, f"{comment} {text}".strip())
            elif len(sections) == 1 and not settings:
                head += [] if text.startswith("@package") else [text]
            else:
                sections.append((text, []))
        elif found := LINE.match(line):
            indent, name, value, comment = found.groups()
            parents = [one for one in parents if one[0] < len(indent)]
            key = ".".join([*(parent for _, parent in parents), name])
            parents.append((len(indent), name))
            settings.append(Setting(key, value.strip(), comment or ""))
    return " ".join(head), sections


def shown(settings: list[Setting]) -> Iterator[Setting]:
    """Yield the settings that have a value, less those of Hydra's own."""
    parents = {one.key.rpartition(".")[0] for one in settings}
    for one in settings:
        words = one.key.split(".")
        if one.key in parents or "_target_" in words or "_partial_" in words:
            continue
        if words[0] not in ("hydra", "defaults"):
            yield one


def cell(text: str) -> str:
    """Return text that keeps to its cell of a Markdown table."""
    return text.replace("|", "\\|")


def keys() -> str:
    """Return a table of the keys of config.yaml for each of its sections."""
    _, sections = read(CONF / "config.yaml")
    parts: list[str] = []
    for title, settings in sections:
        rows = [f"| `{one.key}` | `{one.value}` | {cell(one.comment)} |" for one in shown(settings)]
        if rows:
            heading = f"\n### {title[0].upper()}{title[1:]}\n"
            parts += [heading, "| key | default | meaning |", "| --- | --- | --- |", *rows]
    return "\n".join(parts)


def groups() -> str:
    """Return a table of the choices of each group."""
    config = (CONF / "config.yaml").read_text("utf-8")
    parts = []
    for group in GROUPS:
        chosen = re.search(rf"^  - (?:override )?{group}: (\w+)", config, re.M)
        files = sorted((CONF / group).rglob("*.yaml"), key=lambda path: (len(path.parts), path))
        rows = []
        for path in files:
            name = path.relative_to(CONF / group).with_suffix("").as_posix()
            head, sections = read(path)
            title = f"**`{name}`**" if chosen and chosen[1] == name else f"`{name}`"
            told = [] if group in OVERLAYS else [settings_of_choice(sections[0][1])]
            rows.append(f"| {' | '.join([title, cell(head), *told])} |")
        note = NOTES.get(group)
        parts += [f"\n### `{group}`\n", *([note, ""] if note else [])]
        titles = ["choice", "what it is", *(["settings"] if group not in OVERLAYS else [])]
        parts += [f"| {' | '.join(titles)} |", "|" + " --- |" * len(titles), *rows]
    return "\n".join(parts)


def settings_of_choice(settings: list[Setting]) -> str:
    """Return what may be set of a choice, with comments; not what another key sets."""
    return "<br>".join(
        f"`{one.key}={one.value}`" + (f" ({cell(one.comment)})" if one.comment else "")
        for one in shown(settings)
        if one.key.split(".")[0] not in NOT_SHOWN and not one.value.startswith("${")
    )


def page() -> str:
    """Return the whole page."""
    return "\n".join(
        [INTRODUCTION.rstrip("\n"), keys(), GROUPS_INTRODUCTION.rstrip("\n"), groups(), ""]
    )


if __name__ == "__main__":
    OUT.write_text(page(), "utf-8")
