"""Write docs/configuration.md: every key and choice, with the comments of conf/.

    python -m scripts.results.configuration_page

A test compares the committed page with what this script writes.
"""

from optbench.config.comments import (
    GROUPS,
    Setting,
    default_choice,
    read,
    settings_of,
    shown,
)
from optbench.formats.groups import choices
from optbench.formats.keys import OVERLAYS
from scripts import ROOT

CONF = ROOT / "conf"
OUT = ROOT / "docs" / "configuration.md"
COMMAND = "python -m scripts.results.configuration_page"
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
- `adam.lr=0.01` sets a key of one optimizer, whatever others a sweep has: `-m optimizer=sgd,adam
  sgd.lr=0.1,0.03 adam.lr=0.01` makes three runs of each seed.
- `--cfg job` prints the whole configuration and runs nothing. `--help KEY` says what this page says
  of a key, a group, or a choice (`--help optimizer=adam`).

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
Several together: `'logger=[tensorboard,mlflow]'`. Set as `logger.NAME.KEY=VALUE`. What
each writes, and where: [loggers](files.md#loggers).""",
    "study": """\
A study sets any keys, and what is swept: `python -m optbench -m study=comparison`. For
`claims/...` see [claims](claims.md).""",
    "hydra/launcher": "`basic` is Hydra's own launcher: one run after another, in one process.",
}


def cell(text: str) -> str:
    """Return text that keeps to a cell of a Markdown table."""
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
    parts = []
    for group in GROUPS:
        rows = []
        for name, path in choices(group).items():
            title = f"**`{name}`**" if name == default_choice(group) else f"`{name}`"
            told = [] if group in OVERLAYS else [told_settings(settings_of(path))]
            rows.append(f"| {' | '.join([title, cell(read(path)[0]), *told])} |")
        note = NOTES.get(group)
        parts += [f"\n### `{group}`\n", *([note, ""] if note else [])]
        titles = ["choice", "what it is", *(["settings"] if group not in OVERLAYS else [])]
        parts += [f"| {' | '.join(titles)} |", "|" + " --- |" * len(titles), *rows]
    return "\n".join(parts)


def told_settings(settings: list[Setting]) -> str:
    """Return the settings of a choice with their comments."""
    return "<br>".join(
        f"`{one.key}={one.value}`" + (f" ({cell(one.comment)})" if one.comment else "")
        for one in settings
    )


def page() -> str:
    """Return the whole page."""
    return "\n".join(
        [INTRODUCTION.rstrip("\n"), keys(), GROUPS_INTRODUCTION.rstrip("\n"), groups(), ""]
    )


if __name__ == "__main__":
    OUT.write_text(page(), "utf-8")
