"""Imports of large libraries without the garbage collector."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Import within without the collector, and let it skip what is there from then on.

    Imports make no garbage. The collector would look again and again at the half a million objects
    of torch and its compiler: 0.5 of 2.4 seconds. A higher threshold in one line saves less, and
    lets the garbage of a user's steps grow.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
