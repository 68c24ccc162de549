"""What surrounds a command does not decide how it ends: locale, home folder, `python -O`."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from in_process import call, sub_command
from made_runs import sweep as made_sweep
from omegaconf import OmegaConf

from optbench import __main__ as cli
from optbench import textbook
from optbench.commands import plot
from optbench.commands import report as report_command
from optbench.common import console
from optbench.common.errors import UserError
from optbench.common.files import expanded
from optbench.config import command_line, validate
from optbench.config.resolve import check_syntax, quoted
from optbench.formats.run import read_record

QUICK = ["data.subset=200", "model.hidden=[8]", "epochs=1", "num_threads=1", "quiet=true"]
ONE = ["tuning.trials=1", "tuning.repeats=1", "seeds=1"]
QUICK += ["engine=plain"]  # nothing is compiled in a home folder that is new each time
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # no UTF-8 anywhere


def command(
    module: str, *words: str, cwd: Path, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    kept = {key: value for key, value in os.environ.items() if key != "OPTBENCH_RESULTS"}
    environment = kept | {"OMP_NUM_THREADS": "1"} | variables
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        env=environment, cwd=cwd, capture_output=True, timeout=300,
    )  # fmt: skip


@pytest.fixture
def here(monkeypatch, capsys, tmp_path):
    """`python -m optbench` in this process, in a home folder of its own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OPTBENCH_RESULTS", raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        return call(monkeypatch, *QUICK, *words), *capsys.readouterr()

    return run


@pytest.mark.parametrize("variables", [{"PYTHONIOENCODING": "ascii"}, ASCII], ids=["io", "locale"])
def test_names_that_the_locale_cannot_print_end_well(tmp_path, variables):
    done = command(
        "optbench", *QUICK, "quiet=false", "optimizer.name=é中😀", cwd=tmp_path, **variables
    )
    assert done.returncode == 0, done.stderr.decode()
    assert rb"\xe9\u4e2d\U0001f600  epoch 1" in done.stdout
    assert b"gone" not in done.stderr
    (run,) = (tmp_path / "results" / "runs").iterdir()
    assert read_record(run / "run.json")["name"] == "é中😀"


@pytest.mark.slow
def test_sweep_under_a_locale_of_ascii_draws_and_tables_every_name(tmp_path):
    words = [*QUICK, "-m", "optimizer.name=é中,b", "name=s", "hydra/launcher=basic"]
    done = command("optbench", *words, cwd=tmp_path, **ASCII)
    assert done.returncode == 0, done.stderr.decode()
    folder = tmp_path / "results" / "s"
    assert "é中" in (folder / "summary.md").read_text("utf-8")
    assert b"left out" not in done.stderr


def test_a_stream_that_cannot_print_a_character_prints_its_escape(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", stream)
    console.say("é 中 \udcff")
    assert stream.buffer.getvalue() == b"\xe9 \\u4e2d \\udcff\n"  # type: ignore[attr-defined]


def test_words_of_the_command_line_are_read_as_utf_8():
    assert command_line.as_text("name=x") == "name=x"
    assert command_line.as_text("é中") == "é中"
    raw = "é中".encode().decode("ascii", "surrogateescape")  # as a locale of ASCII decodes it
    assert command_line.as_text(raw) == "é中"
    assert command_line.as_text("a\udcff") == "a\udcff"
    with pytest.raises(UserError, match="no text in UTF-8"):
        check_syntax(["optimizer.name=a\udcff"])


@pytest.mark.parametrize("value", ["\ud800", {"\ud800": 1}, ["\udcff"], {"a": ["x", "\ud800"]}])
def test_half_a_character_is_refused_in_every_value(value):
    with pytest.raises(UserError, match="written as UTF-8"):
        validate.check_values(value, "optimizer")


def test_name_that_the_file_system_cannot_hold_is_refused_in_words(monkeypatch):
    def fsencode(text: str) -> bytes:
        return text.encode("ascii")

    monkeypatch.setattr(os, "fsencode", fsencode)
    with pytest.raises(UserError, match="set PYTHONUTF8=1"):
        validate.check_name("é")
    with pytest.raises(UserError, match="set PYTHONUTF8=1"):
        validate.check_results_dir("/tmp/é")


@pytest.mark.parametrize(
    ("word", "read"),
    [
        ("results_dir=~/x", "results_dir='~/x'"),
        ("results_dir=~root/x", "results_dir='~root/x'"),
        ("results_dir=$HOME/x", "results_dir='$HOME/x'"),
        ("results_dir=${name}/x", "results_dir=${name}/x"),
        ("results_dir=a~b", "results_dir=a~b"),
        ("+optimizer.name=é,b,中", "+optimizer.name='é',b,'中'"),
        ("optimizer.name='é'", "optimizer.name='é'"),
        ("model.hidden=[8,8]", "model.hidden=[8,8]"),
        ("~hydra", "~hydra"),
    ],
)
def test_what_hydra_reads_only_in_quotes_gets_them(word, read):
    assert quoted(word) == read


@pytest.mark.slow
def test_results_in_the_home_folder_are_found_by_every_command(here, tmp_path, capsys):
    home = tmp_path / "home"
    assert here("results_dir=~/x")[0] == 0
    assert len(list((home / "x" / "runs").iterdir())) == 1
    status, _, err = here("-m", "results_dir=~/x", "optimizer=sgd,adam", "name=s")
    assert status == 0, err
    assert (home / "x" / "s" / "summary.csv").exists()
    assert plot.main(["~/x/s", "-o", "~/drawn", "--format", "svg"]) == 0
    assert (home / "drawn" / "summary.csv").exists()
    assert report_command.main(["~/x/s", "-o", "$HOME/page.html"]) == 0
    assert (home / "page.html").exists()
    status, _, err = here("-m", "hydra.sweep.dir=~/swept", "optimizer=sgd,adam")
    assert status == 0, err
    assert (home / "swept" / "summary.csv").exists()
    status, _, err = here("results_dir=~nobody.here/x")
    assert status == 1
    assert "there is no such home folder" in err
    assert not list(tmp_path.glob("~*"))


def test_a_tuned_study_writes_into_the_home_folder(here, tmp_path):
    words = ["hydra/sweeper=tuned", "optimizer=sgd", *ONE]
    status, _, err = here(*words, "results_dir=~/x", "name=t")
    assert status == 0, err
    assert (tmp_path / "home" / "x" / "t" / "study.json").exists()
    assert not list(tmp_path.glob("~*"))


def test_variables_of_the_environment_name_home_folders_too(here, monkeypatch, tmp_path):
    monkeypatch.setenv("OPTBENCH_RESULTS", "$HOME/env")
    assert here()[0] == 0
    assert len(list((tmp_path / "home" / "env" / "runs").iterdir())) == 1
    assert expanded("$HOME/a") == str(tmp_path / "home" / "a")
    assert expanded("$NO_SUCH_NAME/a") == "$NO_SUCH_NAME/a"


@pytest.mark.slow
@pytest.mark.parametrize("level", ["1", "2"])
def test_without_asserts_and_docstrings_everything_runs(tmp_path, level):
    words = [*QUICK, "hydra/sweeper=tuned", "optimizer=sgd,adam", *ONE]
    done = command("optbench", *words, "name=t", cwd=tmp_path, PYTHONOPTIMIZE=level)
    assert done.returncode == 0, done.stderr.decode()
    folder = str(tmp_path / "results" / "t")
    for name in ("verdict", "report"):
        done = command("optbench", name, folder, cwd=tmp_path, PYTHONOPTIMIZE=level)
        assert done.returncode == 0, done.stderr.decode()


def test_no_behaviour_hangs_on_an_assert():
    """An assert only tells the type checker what is not None."""
    for path in Path(cli.__file__).parent.rglob("*.py"):
        for line in path.read_text("utf-8").splitlines():
            if line.strip().startswith("assert "):
                assert line.rstrip().endswith(" is not None"), f"{path}: {line}"


@pytest.mark.parametrize("form", [tuple, list, np.array, OmegaConf.create, torch.tensor])
def test_two_numbers_may_be_any_sequence(form):
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    betas = form([0.75, 0.5]) if form is not torch.tensor else [0.75, 0.5]
    optimizer = textbook.Adam([weight], betas=betas)
    assert optimizer.param_groups[0]["betas"] == (0.75, 0.5)
    optimizer.step()
    config = {"_target_": "optbench.textbook.Adam", "_partial_": True, "betas": [0.75, 0.5]}
    made = instantiate(OmegaConf.create(config))([torch.nn.Parameter(torch.ones(2))])
    assert made.param_groups[0]["betas"] == (0.75, 0.5)
    rule = textbook.Rprop([weight], etas=form([0.5, 1.5]) if form is not torch.tensor else [0.5, 2])
    rule.step()


@pytest.mark.parametrize(
    "betas", ["ab", {"a": 1, "b": 2}, {0.9, 0.5}, (0.9,), [0.9] * 3, 0.9, None]
)
def test_what_is_no_pair_of_numbers_is_refused(betas):
    with pytest.raises(UserError, match="betas must be two numbers"):
        textbook.Adam([torch.nn.Parameter(torch.ones(2))], betas=betas)


def test_a_folder_whose_name_is_no_text_is_refused_in_words(tmp_path, capsys):
    try:
        folder = made_sweep(Path(os.fsdecode(bytes(tmp_path) + b"/a\xff")), ("adam", "sgd"), 1)
    except (OSError, UnicodeError):
        pytest.skip("this file system has no such name")
    assert sub_command("report")([str(folder), "-o", str(tmp_path / "page.html")]) == 1
    assert "bytes that are no UTF-8" in capsys.readouterr().err
