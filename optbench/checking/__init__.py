"""The checks of an optimizer class, of which `optbench check` prints the table."""

from collections.abc import Iterator
from typing import NamedTuple

from optbench.checking.rows import CHECKS
from optbench.checking.subjects import Subject
from optbench.common.errors import UserError
from optbench.training.object_state.global_state import kept


class Row(NamedTuple):
    """A line of the table. passed: None where the check does not apply."""

    check: str
    passed: bool | None
    meaning: str  # what holds if the check passes
    words: str  # what was found


def checked(subject: Subject) -> Iterator[Row]:
    """Yield the row of each check. An error of the class's own code fails its check."""
    for name, check in CHECKS.items():
        meaning = (check.__doc__ or "").strip().rstrip(".")
        try:
            with kept(subject.factory):
                passed, words = check(subject)
        except UserError as error:
            passed, words = False, str(error)
        yield Row(name, passed, meaning, words)
