"""Makes what the tests of plans need: workloads, and fleets in which some GPUs are held."""

from functools import cache
from typing import Any

from fleet import fleet_from_spec
from topology.fabric.from_fleet import Fabric
from topology.plan.planner import Plan, plan_workload
from topology.plan.workload import Workload, workload_from_document
from topology.words import NoiseName, Objective, StackName


def with_class(fabric: Fabric, name: str, **changes: Any) -> Fabric:
    """The same fleet with other figures for a route class; those of ``jitter`` by their names."""
    route_class = fabric.figures.route_class[name]
    jitter = route_class.jitter.model_copy(update=changes.pop("jitter", {}))
    changed = route_class.model_copy(update={**changes, "jitter": jitter})
    classes = {**fabric.figures.route_class, name: changed}
    return Fabric(fabric.fleet, fabric.figures.model_copy(update={"route_class": classes}))


@cache
def fabric_of(spec: str) -> Fabric:
    """The fabric of a synthetic fleet, such as ``dgx-h100 node:4 busy:8,2``; made once."""
    return Fabric(fleet_from_spec(f"model:{spec}"))


def make_workload(gpus: int = 8, **changes: Any) -> Workload:
    """An all-reduce of 64 KiB, but for the changes."""
    document = {
        "kind": "workload",
        "schema_version": 1,
        "name": "test",
        "collective": "all_reduce",
        "size_bytes": 65_536,
        "gpus": gpus,
    }
    return workload_from_document({**document, **changes}, where="test")


def plan_of(
    spec: str,
    gpus: int = 8,
    *,
    objective: Objective = Objective.P99,
    stack: StackName | None = None,
    noise: NoiseName = NoiseName.DEDICATED,
    trials: int | None = 1_000,
    seed: int = 0,
    **changes: Any,
) -> Plan:
    """The plan of a workload on a synthetic fleet."""
    return plan_workload(
        fabric_of(spec),
        make_workload(gpus, **changes),
        objective=objective,
        stack=stack,
        noise=noise,
        trials=trials,
        seed=seed,
    )
