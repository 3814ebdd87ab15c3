"""Memory: building a document of a million parts without the collector looking at each again."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause Python's search for cycles while many objects without any are made.

    The search starts anew with every share of new objects and reads all that there are: on a map
    of 16,000 nodes it took longer than building the map. What has no cycles is freed without it.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
