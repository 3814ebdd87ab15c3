"""fleetmap's topology: links with latencies, collectives, percentiles, plans, diagrams.

The names below are the front door; they load when first used, so that ``topology --help`` stays
quick.
"""

from typing import TYPE_CHECKING, Any

from topology.errors import TopologyError

if TYPE_CHECKING:
    from topology.api import calibrate, diagnose, plan_fleet, simulate, simulate_step, validate
    from topology.fabric.from_fleet import Fabric, load_fabric
    from topology.plan.workload import Workload, load_workload
    from topology.steps.document import StepDocument, load_step

_HOME = {
    "Fabric": "fabric.from_fleet",
    "StepDocument": "steps.document",
    "Workload": "plan.workload",
    "calibrate": "api",
    "diagnose": "api",
    "load_fabric": "fabric.from_fleet",
    "load_step": "steps.document",
    "load_workload": "plan.workload",
    "plan_fleet": "api",
    "simulate": "api",
    "simulate_step": "api",
    "validate": "api",
}

__all__ = [
    "Fabric",
    "StepDocument",
    "TopologyError",
    "Workload",
    "calibrate",
    "diagnose",
    "load_fabric",
    "load_step",
    "load_workload",
    "plan_fleet",
    "simulate",
    "simulate_step",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'topology' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"topology.{_HOME[name]}"), name)
