"""What can be wrong after the map: the fabric, a schedule, a workload."""

from fleet.errors import ExpectedError


class TopologyError(ExpectedError):
    """Base of what goes wrong after the map."""


class FabricError(TopologyError):
    """A link or route that cannot be modelled: a fact is missing (``field`` names it)."""


class UnreachableError(TopologyError):
    """Two endpoints that no known link joins."""

    exit_code = 1


class ScheduleError(TopologyError):
    """A schedule that breaks its collective (``field`` is the rank and step)."""


class WorkloadError(TopologyError):
    """A workload or option that cannot be: more ranks than there are, an unknown word."""


class NoCandidateError(TopologyError):
    """A plan that no candidate can carry out."""

    exit_code = 1


class MeasurementError(TopologyError):
    """Measurements that cannot be read (``where`` is the file, ``field`` the line and column)."""


class NothingMeasuredError(MeasurementError):
    """Measurements of which none can be used (``where`` is the file)."""

    exit_code = 4
