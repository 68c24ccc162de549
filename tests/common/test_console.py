"""How a command ends: in words on standard error, with an exit status."""

import errno

import pytest

from optbench.common.console import endings, guard_streams, warn
from optbench.common.errors import UserError


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (UserError("lr is wrong"), 1, "optbench: lr is wrong\n"),
        (KeyboardInterrupt(), 130, "optbench: interrupted\n"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/x"),
            1,
            "optbench: cannot read or write /x: Permission denied\n",
        ),
        (MemoryError(), 1, "optbench: the device's memory is too small for the run\n"),
    ],
)
def test_a_command_ends_in_words_on_standard_error(error, status, words, capsys):
    with pytest.raises(SystemExit) as caught, endings():
        raise error
    assert caught.value.code == status
    assert capsys.readouterr() == ("", words)


def test_what_is_nobodys_mistake_shows_its_traceback_and_ends_in_words(capsys):
    with pytest.raises(SystemExit) as caught, endings():
        raise KeyError("x")
    assert caught.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("Traceback")
    assert error.endswith("optbench: KeyError: 'x'\n")


def test_a_command_says_a_warning_once(capsys):
    for _ in range(2):
        with guard_streams():
            for text in ("one seed", "one seed", "two seeds"):
                with guard_streams():
                    warn(text)
        assert capsys.readouterr().err == "warning: one seed\nwarning: two seeds\n"
    warn("one seed")  # without a command, as in a notebook
    warn("one seed")
    assert capsys.readouterr().err == "warning: one seed\n" * 2
