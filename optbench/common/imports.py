"""Imports of large libraries without the garbage collector."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Import within without the collector, and let it skip what is there from then on.

    Imports make no garbage. The collector would look again and again at the half a million objects
    of torch and its compiler, also in a sweep that only composes configurations.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
