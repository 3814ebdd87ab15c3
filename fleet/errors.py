"""Errors a caller or an input can cause. What is merely absent or dead is a value, not an error."""


class ExpectedError(Exception):
    """A caller's mistake or a broken input, told in one line: where, field, problem, remedy.

    The facts are attributes too. The command line prints the line and leaves with ``exit_code``.

    >>> print(ExpectedError("not a number", where="a.yaml", field="gpus", remedy="give a count"))
    a.yaml: gpus: not a number; give a count
    """

    exit_code = 2

    def __init__(self, problem: str, *, where: str = "", field: str = "", remedy: str = "") -> None:
        self.problem = problem
        self.where = where
        self.field = field
        self.remedy = remedy
        place = ": ".join(part for part in (where, field, problem) if part)
        super().__init__(f"{place}; {remedy}" if remedy else place)


class FleetError(ExpectedError):
    """Base of what goes wrong before the map: sources, snapshots, store."""


class SnapshotError(FleetError):
    """A snapshot or map that breaks its own rules (``where`` is the file, ``field`` the path)."""


class SourceError(FleetError):
    """A source that cannot be read (``where`` is the file or the device interface)."""


class NothingCollectedError(SourceError):
    """Every input was refused or failed: there is no map to give."""

    exit_code = 4


class StoreError(FleetError):
    """A file that cannot be loaded or saved (``where`` is the path)."""
