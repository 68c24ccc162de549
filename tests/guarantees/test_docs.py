"""The pages of docs/ name what there is: links, choices, columns, promises; their examples run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import optbench
from optbench.figures.kinds import KINDS
from optbench.formats.run import COLUMNS
from scripts.results import optimizers_page
from scripts.results.configuration_page import OUT, page

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
DOCS = {str(path.relative_to(ROOT / "docs")): path.read_text("utf-8") for path in PAGES}
TEXTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
EXTENDING = DOCS["extending.md"]
FILE = r"```\w+\n(# @package _global_\n)?# (\S+\.(?:yaml|py))\n(.*?)```"
FILES = [(name, head + text) for head, name, text in re.findall(FILE, EXTENDING, re.S)]
COMMANDS = re.findall(r"^    python -m optbench (.*)$", EXTENDING, re.M)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    for name, text in FILES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return folder


def run(folder: Path, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def is_there(path: Path) -> bool:
    """Return whether a path exists, or is one of the engines where these were deleted."""
    deleted = not (ROOT / "optbench" / "engines").exists()
    return path.exists() or (deleted and "engines" in path.parts)


def anchors(text: str) -> set[str]:
    """Return the anchors that a code host gives the headings of a page."""
    found = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}


@pytest.mark.parametrize("path", [*TEXTS, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path):
    links = re.findall(r"\]\(([^)\s]+)\)", path.read_text("utf-8"))
    for link in links:
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert is_there(target), link
        if anchor:
            assert anchor in anchors(target.read_text("utf-8")), link


def test_every_page_is_linked_from_the_readme_or_a_list_of_pages():
    readme = TEXTS[0].read_text("utf-8")
    assert "(docs/index.md" in readme
    for name in DOCS:
        folder, _, last = name.rpartition("/")
        here = DOCS.get(f"{folder}/index.md", "") if folder else ""
        linked = f"(docs/{name}" in readme or f"({name}" in DOCS["index.md"] or f"({last}" in here
        assert linked, f"{name} is missing in docs/index.md"


def test_the_page_of_the_configuration_is_what_the_script_writes():
    assert page() == OUT.read_text("utf-8"), "python -m scripts.results.configuration_page"


def test_the_page_of_optimizers_is_made_from_runs():
    pytest.importorskip("pytorch_optimizer", reason="pip install 'optbench[optimizers]'")
    text = optimizers_page.OUT.read_text("utf-8")
    assert optimizers_page.page() == text, "python -m scripts.results.optimizers_page"
    for name in optimizers_page.NAMED:
        assert f"| `{name}` |" in text


def test_the_page_of_the_configuration_names_every_key_and_choice():
    from optbench.formats.keys import GROUPS, KEYS, nested_keys

    text = page()
    for key in KEYS:
        if key not in GROUPS and key != "logger" and not nested_keys(key):
            assert f"| `{key}` |" in text, key
    for path in (ROOT / "conf").rglob("*.yaml"):
        if path.parent.name != "conf":
            assert re.search(rf"^\| (\*\*)?`([\w]+/)?{path.stem}`(\*\*)? \|", text, re.M), path


def test_there_are_examples_of_each_kind():
    kinds = {"dataset", "model", "loss", "initializer", "study"}
    assert {Path(name).parent.name for name, _ in FILES} >= kinds
    assert len(COMMANDS) >= 6


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(words, marks=pytest.mark.slow) if re.search("study|tiny", words) else words
        for words in COMMANDS
    ],
)
def test_every_command_of_extending_runs(folder, command):
    run(folder, "-m", "optbench", *command.split())


@pytest.mark.slow  # the example of the README runs in CI
def test_the_examples_of_from_python_run(folder):
    blocks = EXTENDING.split("## From Python")[1].split("```python\n")[1:]
    text = "\n".join(block.split("```")[0] for block in blocks)
    run(folder, "-c", text + "\nassert len(rows) == 2, rows")
    assert (folder / "compared.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")), ids=str)
def test_notebooks_run_and_show_their_figures(path, tmp_path, monkeypatch):
    notebook = nbformat.read(path, as_version=4)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    client = NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    texts = "".join(map(str, (cell.get("outputs") for cell in notebook.cells)))
    assert texts.count("image/png") == path.read_text("utf-8").count('"image/png"') >= 1
    assert "Warning" not in texts


def test_every_column_is_explained():
    for column in {name for columns in COLUMNS.values() for name in columns}:
        assert f"`{column}`" in DOCS["files.md"]


def test_every_kind_of_figure_is_in_the_table_with_a_function_that_exists():
    from importlib import import_module

    table = DOCS["figures.md"].split("## Kinds")[1].split("## ")[0]
    for kind in KINDS:
        assert f"`{kind}`" in table, kind
    table = "\n".join(line for line in table.splitlines() if line.startswith("|"))
    functions = re.findall(r"`((?:figures|analysis|trajectories)(?:\.[a-z_]+)+)[(`]", table)
    assert len(functions) > 8
    for name in functions:
        module, _, function = name.rpartition(".")
        assert hasattr(import_module(f"optbench.{module}"), function), name


def test_every_function_of_the_statistics_exists():
    from optbench import stats
    from optbench.stats import algoperf, external_scores

    table = DOCS["tuned-studies.md"].split("## From Python")[1]
    names = re.findall(r"`([a-z_]+)`", table)
    assert len(names) > 25
    for name in names:
        assert any(hasattr(module, name) for module in (stats, algoperf, external_scores)), name


def test_the_citation_is_of_this_version():
    assert f"\nversion: {optbench.__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")


def test_every_claim_is_in_the_table_of_claims():
    table = (ROOT / "results" / "claims" / "README.md").read_text("utf-8")
    for path in (ROOT / "conf" / "study" / "claims").glob("*.yaml"):
        assert f"| [{path.stem}](#{path.stem}) |" in table
        assert (ROOT / "results" / "claims" / f"{path.stem}.png").exists()


def test_every_promise_names_a_test_that_exists():
    rows = re.findall(r"^\| .* \| (.*) \|$", DOCS["guarantees.md"], re.M)
    rows = [row for row in rows if row not in ("test", "---")]
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(rows) > 25
    for row in rows:
        named = re.findall(r"`([^`]+)`", row)
        assert named, row
        for name in named:
            found = is_there(ROOT / name) if "/" in name else f"def {name}(" in tests
            assert found, name


def test_no_page_has_a_number_left_to_fill_in():
    for name, text in DOCS.items():
        assert not re.search(r"@[A-Z]+@|\bTODO\b|\bTBD\b", text), name
