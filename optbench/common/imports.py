"""Import large libraries without the garbage collector."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Pause the garbage collector, then exempt every object that exists at the end.

    Imports make no garbage. The collector would scan the half a million objects of torch and its
    compiler again and again, which takes 0.5 of 2.4 seconds. A higher threshold of the collector
    saves less, and lets the garbage of a user's steps grow.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
