"""Numbers and names in sentences."""

import pytest

from optbench.common.text import count, with_article


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "0 processes"), (1, "1 process"), (2, "2 processes")]
)
def test_a_count_has_the_plural_that_fits(number: int, shown: str) -> None:
    assert count(number, "process", "processes") == shown
    assert count(number, "run") == f"{number} run{'s' * (number != 1)}"


@pytest.mark.parametrize("shown", ["an Adam", "a tensor", "an int", "a list"])
def test_a_name_has_the_article_that_fits(shown: str) -> None:
    assert with_article(shown.split()[1]) == shown
