"""The documentation site: its commands work, its numbers are the committed ones, it builds."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from optbench.__main__ import COMMANDS
from optbench.analysis.comparison import compare
from optbench.analysis.summary import summary
from optbench.commands import Parser, trajectories, work
from optbench.commands import help as help_command
from optbench.common.console import say
from optbench.formats import groups
from optbench.report import terminal
from scripts import ROOT
from scripts.results import claims, course, course_figures
from scripts.results.packed import unpack
from scripts.site import commands as doc_commands
from scripts.site.commands import split

FOUND = doc_commands.commands(doc_commands.pages())
OF_PROGRAM = {c: p for c, p in FOUND.items() if split(c)[0] not in COMMANDS}
OF_COMMANDS = [c for c in FOUND if split(c)[0] in COMMANDS]
FIRST = "results/first"  # the sweep of docs/getting-started.md
OF_MACHINES = ("work", "merge")  # which need other machines' folders
REAL = [
    c
    for c in OF_COMMANDS
    if (FIRST in c or ("table.csv" in c and "--problem" not in c)) and not c.startswith(OF_MACHINES)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with the files of all pages, and the sweep of the first page."""
    folder = tmp_path_factory.mktemp("site")
    doc_commands.write_files(folder)
    unpack(course_figures.FIRST, folder / FIRST)
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    """Be in that folder, with its configurations and modules."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    groups.own_folders.clear()


def test_there_are_commands_of_each_kind():
    assert len(OF_PROGRAM) > 60
    assert {split(c)[0] for c in OF_COMMANDS} >= {"plot", "report", "verdict", "trajectories"}
    assert len(REAL) >= 6


@pytest.mark.parametrize("command", OF_PROGRAM)
def test_every_command_that_trains_is_composed(here, command):
    words = split(command)
    if "--help" in words:
        assert help_command.main([word for word in words if word != "--help"]) == 0
        return
    if "--config-dir" in words:
        at = words.index("--config-dir")
        groups.own_folders[:] = [here / words[at + 1]]
        words = [*words[:at], *words[at + 2 :]]
    doc_commands.compose_first(words)


class Parsed(Exception):
    """A sub-command has read its words, and would begin."""


def then_stop(read):
    """Return a method that parses, and then stops the sub-command."""

    def parse(self, args=None):
        read(self, args)
        raise Parsed

    return parse


@pytest.mark.parametrize("command", OF_COMMANDS)
def test_every_sub_command_takes_its_words(here, monkeypatch, command):
    name, *words = split(command)
    if name == "trajectories":
        assert trajectories.parse(words).optimizers
        return
    if name == "work":
        assert work.parser().parse_intermixed_args(words).words
        return
    for method in ("parse_args", "parse_intermixed_args"):
        monkeypatch.setattr(Parser, method, then_stop(getattr(Parser, method)))
    with pytest.raises(Parsed):
        import_module(f"optbench.commands.{name}").main(words)


@pytest.mark.parametrize(
    "command",
    [pytest.param(c, marks=pytest.mark.slow) if c.startswith("plot") else c for c in REAL],
)
def test_the_commands_on_finished_runs_work(here, command):
    name, *words = split(command)
    if "results/imported" in command and not (here / "results" / "imported").exists():
        main = import_module("optbench.commands.import").main
        main(split(next(c for c in REAL if c.startswith("import")))[1:])
    status = import_module(f"optbench.commands.{name}").main(words)
    assert status in ((0, 3, 4) if "--exit-code" in words else (0, None))


@pytest.mark.parametrize("page", ["docs/getting-started.md", "README.md"])
def test_the_first_comparison_prints_what_the_pages_show(here, capsys, page):
    made = compare([FIRST])
    finals = summary(made, made.judged, made.options.facet, made.options.lines)
    say(*terminal.lines(made, finals, Path(FIRST)))
    printed = [line for line in capsys.readouterr().out.splitlines() if line.strip(" \u2500")]
    shown = (ROOT / page).read_text("utf-8")
    for line in printed:
        assert f"\n{line.rstrip()}\n" in shown, line


def test_the_pages_with_computed_numbers_are_what_the_script_writes():
    for path in course.pages():
        text = path.read_text("utf-8")
        assert course.filled(path) == text, f"{path.name}: python -m scripts.results.course"


def test_each_block_of_a_page_is_closed():
    for path in course.pages():
        text = path.read_text("utf-8")
        assert len(course.BLOCK.findall(text)) == text.count("<!-- end -->"), path.name


def test_every_claim_and_every_scene_is_on_a_page_of_the_course():
    texts = "".join(path.read_text("utf-8") for path in course.COURSE.glob("*.md"))
    for path in claims.STUDIES.glob("*.yaml"):
        assert f"\n    {claims.command(path.stem)}\n" in texts, path.stem
    for name in course.trajectories.SCENES:
        assert f"<!-- scene {name} -->" in texts, name


def test_every_page_of_the_course_has_formula_configuration_command_and_verdict():
    for path in course.COURSE.glob("*.md"):
        text = path.read_text("utf-8")
        if path.stem != "index":
            assert "$$" in text, path.name
            assert "## The configuration" in text, path.name
            assert re.search(r"<!-- (claim|scene|verdict) ", text), path.name
            assert "![" in text, path.name


def test_a_figure_of_the_course_is_drawn_from_its_table(tmp_path):
    course_figures.draw("nesterov", tmp_path)
    caption = (tmp_path / "nesterov.txt").read_text("utf-8")
    assert caption == (course_figures.OUT / "nesterov.txt").read_text("utf-8")
    assert (tmp_path / "nesterov.png").stat().st_size > 5000


def test_every_picture_has_a_text_alternative():
    for path in doc_commands.pages():
        for words, target in re.findall(r"!\[([^]]*)\]\(([^)]+)\)", path.read_text("utf-8")):
            assert len(words.split()) > 1, f"{path}: {target}"


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx")
    script = [sys.executable, "-m", "scripts.site", str(tmp_path / "site")]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "docs/index.html" in (tmp_path / "site" / "index.html").read_text("utf-8")
