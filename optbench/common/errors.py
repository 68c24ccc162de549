"""Errors whose message is meant for the user and printed without a traceback."""

import os
import re
import sysconfig
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from optbench.common.names import clip, did_you_mean

MESSAGE_CHARACTERS = 2000  # a longer message loses its middle


class UserError(Exception):
    """A mistake in a user's request, or in a file that was given.

    The message says what is wrong, what is allowed and what to do.
    """

    def __str__(self) -> str:
        return shorten(super().__str__())


class CodeError(UserError):
    """An error raised by a user's or a package's model, optimizer, loss or schedule."""


@contextmanager
def blame(what: str) -> Iterator[None]:
    """Turn an error of a user's or a package's code into a `CodeError`: "{what}: ...".

    Out-of-memory errors and a `UserError` pass unchanged, as that code is not to blame for them.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if memory_is_full(error):
            raise
        if what.startswith("a step with ") and "forward" in _own_functions(error):
            what = f"the model's forward failed in {what.removesuffix(' failed')}"
        raise CodeError(f"{what}: {described(error)}") from error


def _own_functions(error: BaseException) -> list[str]:
    """Return the names of the functions outside of packages through which an error came."""
    frames = traceback.extract_tb(error.__traceback__)
    return [frame.name for frame in frames if _is_own(frame.filename)]


NEEDS_GRAPH_HINT = (
    " It may need gradients that can be differentiated again (backward(create_graph=True)), which "
    "optbench gives to a class that uses them in one of its first steps: choose another class"
)
MUON_GROUPS_HINT = (
    " It wants groups that say use_muon=True or False, and optbench gives it one list of "
    "parameters: give as optimizer._target_ a function of yours that makes the groups (such as "
    "matrices, and all others) and the optimizer; optimizer=muon does so for torch's Muon"
)
NO_GRAD_HINT = " Write @torch.no_grad() above the optimizer's step"
ERROR_HINTS = {  # by a part of the error's text
    "does not require grad and does not have a grad_fn": NEEDS_GRAPH_HINT,
    "create_graph": NEEDS_GRAPH_HINT,
    "use_muon": MUON_GROUPS_HINT,
    "a leaf Variable that requires grad is being used in an in-place": NO_GRAD_HINT,
}


def described(error: BaseException) -> str:
    """Describe an exception and where it was raised.

    The place is the last one outside of torch and optbench, if there is one.
    """
    frames = traceback.extract_tb(error.__traceback__)
    ours = Path(__file__).parent.parent
    others = [f for f in frames if ours not in Path(f.filename).parents]
    outside = [f for f in others if "/torch/" not in f.filename]
    place = (outside or frames)[-1:]
    where = "".join(f" ({f.filename}, line {f.lineno}, in {f.name})" for f in place)
    text = " ".join(message_of(error).split())[:500]
    hints = [f".{hint}" for part, hint in ERROR_HINTS.items() if part in text]
    return f"{type(error).__name__}: {text}{where}{''.join(hints[:1])}"


def shorten(message: str) -> str:
    """Return a message, without its middle if it is too long to read."""
    return clip(message, MESSAGE_CHARACTERS, " ... ")


def memory_is_full(error: BaseException) -> bool:
    """Return whether an allocation failed on a GPU or on the CPU."""
    by_type = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return by_type or "can't allocate memory" in str(error)


def reason(error: BaseException) -> str:
    """Return an exception in words; print the traceback unless the user erred."""
    if isinstance(error, UserError):
        return str(error)
    if memory_is_full(error):
        first = str(error).strip().splitlines()[:1]
        return "; ".join(["the device's memory is too small for the run", *first])
    traceback.print_exception(error)
    return f"{type(error).__name__}: {error}"


def unwritable(path: Path, error: OSError) -> UserError:
    """Return the error for a run's folder that cannot be written."""
    return UserError(
        f"cannot write {path}: {error.strerror or error}. Make room, or give another folder with "
        f"results_dir=FOLDER; the same command goes on from the last checkpoint, if there is one"
    )


UNWRITABLE = (
    "cannot write results into {}: {}. Give a folder of yours with results_dir=FOLDER (or the "
    "environment variable OPTBENCH_RESULTS)."
)


def is_text(value: str) -> bool:
    """Return whether UTF-8 can encode the text: a lone surrogate cannot be encoded."""
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def check_choice(key: str, value: object, allowed: Iterable[str]) -> None:
    """Raise `UserError` unless the value of this key is one of those allowed."""
    names = list(allowed)
    if not isinstance(value, str) or value not in names:
        raise UserError(
            f"{key} must be one of {', '.join(names)}, not {value!r}"
            + did_you_mean(str(value), names)
        )


def call_of(factory: object) -> str:
    """Return a partial call as text, such as "mlp(hidden=[8], activation='relu')"."""
    given: dict[str, object] = {}
    while isinstance(factory, partial):
        given = factory.keywords | given
        factory = factory.func
    name = getattr(factory, "__name__", type(factory).__name__)
    texts = {k: call_of(v) if isinstance(v, partial) else repr(v) for k, v in given.items()}
    return f"{name}({', '.join(f'{key}={text}' for key, text in texts.items())})"


def message_of(error: BaseException) -> str:
    """Return an exception's message, without the C++ stack that torch may add."""
    return str(error).split("Exception raised from ")[0].strip()


@contextmanager
def refusals(what: str, advice: str = "") -> Iterator[None]:
    """Turn an error of a user's or a package's function into a `UserError`.

    The message begins with `what`, and names the line of the user's own code. An error that this
    code itself raised is of its own kind: it is named, and gets no advice on shapes.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            yield
    except UserError:
        raise
    except Exception as error:  # the code of others may raise anything
        asked = re.search(r"tried to allocate (\d+) bytes", str(error))
        why = message_of(error) or type(error).__name__
        if asked:
            why = f"it needs {int(asked[1]) / 2**30:,.0f} GiB for one tensor"
        elif isinstance(error, LookupError | AssertionError | ArithmeticError):
            why = f"{type(error).__name__}: {why}"
        elif _raised_by_user(error):
            why, advice = f"{type(error).__name__}: {why}", ""
        raise UserError(f"{what}: {why}{own_line(error)}{advice}") from error


def own_line(error: BaseException) -> str:
    """Return the line in the user's own code, as " (net.py, line 7)", or ""."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _is_own(frame.filename):
            return f" ({Path(frame.filename).name}, line {frame.lineno})"
    return ""


def _is_own(file: str) -> bool:
    """Return whether a file is the user's: neither optbench's, nor a package's, nor Python's."""
    others = (sysconfig.get_path("stdlib"), f"{Path(__file__).parent.parent}{os.sep}", "<")
    installed = {"site-packages", "dist-packages"} & {*Path(file).parts}
    return not installed and not file.startswith(others)


def _raised_by_user(error: BaseException) -> bool:
    """Return whether a `raise` of the user's own code made an error."""
    last = traceback.extract_tb(error.__traceback__)[-1:]
    return any(_is_own(f.filename) and re.search(r"\braise\b", f.line or "") for f in last)
