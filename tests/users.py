"""Without root's rights for a moment: what is forbidden to others is forbidden then."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

NOBODY = 65534


@contextmanager
def nobody_special() -> Iterator[None]:
    """Run with the rights of an ordinary user, also where root runs the tests."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)
