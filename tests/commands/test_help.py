"""`optbench --help` fits a screen, and explains every key with the comment of its YAML."""

import subprocess
import sys

import pytest
from in_process import call

from optbench import __main__ as program
from optbench import __version__
from optbench.commands.help import about, sub_commands
from optbench.common.errors import UserError
from optbench.config.comments import GROUPS, known_keys
from optbench.formats.groups import choices


@pytest.fixture
def said(monkeypatch, capsys):
    """Return the exit status of `optbench` with these words, and what it prints."""

    def run(*words: str, columns: int = 100) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        return call(monkeypatch, *words), *capsys.readouterr()

    return run


def test_the_help_fits_a_screen_and_names_all_there_is(said):
    status, out, _ = said("--help")
    assert status == 0
    assert len(out.splitlines()) <= 48
    assert max(map(len, out.splitlines())) <= 100
    for group in GROUPS:
        for name in choices(group):
            folder, _, last = name.rpartition("/")
            listed = last in out
            assert listed or f"{folder}/..." in out  # too many for a screen
    for word in (*program.COMMANDS, "*adam", "*workers", "*grid", "batch_size", "--hydra-help"):
        assert word in out
    assert max(map(len, said("-h", columns=80)[1].splitlines())) <= 100


def test_the_help_lists_the_sub_commands_that_there_are():
    assert [name for name, _ in sub_commands()] == sorted(program.COMMANDS)
    assert all(text for _, text in sub_commands())


@pytest.mark.parametrize("key", known_keys())
def test_the_comment_of_each_key_is_its_help(key):
    text = " ".join(about(key).split())
    for _, setting in known_keys()[key]:
        assert " ".join(setting.comment.split()) in text
        assert setting.value in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["seed"], "seed=0  fixes initial weights"),
        (["log"], "log.eval_epochs=1"),
        (["optimizer.lr"], "adam: 0.001"),
        (["optimizer"], "Stochastic gradient descent (Robbins & Monro 1951)"),
        (["optimizer=adam"], "optimizer.eps=1.0e-08         Kingma & Ba 2015"),
        (["study=claims/momentum"], "optimizer.momentum=0.0,0.5,0.9,0.99"),
        (["hydra/launcher"], "Hydra's own"),
        (["momentum"], "optimizer=momentum  SGD with momentum"),
        (["textbook/adam"], "optimizer=textbook/adam  Kingma"),
        (["+optimizer.lr=0.1"], "adam: 0.001"),
        (["adam.lr"], "adam.lr=0.001  Kingma & Ba 2015"),
        (["textbook.adam.lr=0.1"], "textbook.adam.lr=0.001  algorithm 1"),
        *(
            ([name], f"usage: optbench {name}")
            for name in program.COMMANDS
            if name != "trajectories"
        ),
        (["trajectories"], "optbench trajectories function=NAME"),
        (["--config-dir", "mine", "seed"], "seed=0  fixes initial weights"),
    ],
)
def test_help_explains_what_it_is_asked(said, words, expected):
    for order in (["--help", *words], [*words, "--help"]):
        status, out, _ = said(*order)
        assert status == 0
        assert expected in out


def test_the_choices_of_an_own_folder_are_choices(said, tmp_path):
    (tmp_path / "optimizer").mkdir()
    text = "# My first\nname: firefly\n_target_: a.B\nlr: 0.5  # like a glow\n"
    (tmp_path / "optimizer" / "firefly.yaml").write_text(text)
    own = ["--config-dir", str(tmp_path)]
    assert " firefly " in said("--help", *own)[1].replace("\n", " ")
    assert "firefly My first" in " ".join(said("--help", "optimizer", *own)[1].split())
    assert "optimizer.lr=0.5  like a glow" in said(*own, "--help", "optimizer=firefly")[1]
    assert "Did you mean firefly?" in said(*own, "optimizer=firefyl")[2]
    assert "firefly" not in said("--help")[1]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("adamm", "Did you mean adam?"),
        ("optimizer.learning_rate", "Did you mean optimizer.lr?"),
        ("adma.lr", "Did you mean adam.lr?"),
        ("momentun", "Did you mean optimizer.momentum"),
        ("optimizer=adamm", "Did you mean adam?"),
        ("verdct", "Did you mean verdict?"),
        ("plt", "Did you mean plot?"),
        ("zzzzzz", "--help lists them all"),
    ],
)
def test_help_proposes_the_nearest_of_a_misspelt_word(said, word, expected):
    status, out, err = said("--help", word)
    assert (status, out) == (1, "")
    assert expected in err
    with pytest.raises(UserError):
        about(word)


def test_the_version_is_optbenchs_beside_those_it_stands_on(said):
    status, out, _ = said("--version")
    assert status == 0
    assert out.startswith(f"optbench {__version__} (torch 2.")
    assert "hydra-core" in out


def test_help_needs_neither_torch_nor_hydra_and_hydras_own_is_there():
    code = (
        "import sys; from optbench.commands.help import main; main([]); main(['optimizer.lr']);"
        "assert not {'torch', 'hydra', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    words = [sys.executable, "-m", "optbench", "--hydra-help"]
    assert "== Flags ==" in subprocess.run(words, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(("word", "key"), [("lr", "optimizer.lr"), ("hidden", "model.hidden")])
def test_help_explains_a_key_by_its_last_part(said, word, key):
    status, out, _ = said("--help", word)
    assert status == 0
    assert out.startswith(f"{key}\n")
