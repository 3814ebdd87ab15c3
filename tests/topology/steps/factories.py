"""Steps for tests: a test shows only what is special."""

from functools import cache
from typing import Any

from tests.topology.latency.factories import fabric_of
from topology.collective.placement import pack
from topology.fabric.from_fleet import Fabric
from topology.steps.document import StepDocument, step_from_document
from topology.steps.simulate import simulate_step
from topology.steps.summary import StepSummary
from topology.words import NoiseName


@cache
def h100(nodes: int = 2) -> Fabric:
    """DGX H100 nodes on one leaf."""
    return fabric_of(f"dgx-h100 node:{nodes}")


def compute(name: str, time_s: float | str, spread: float | str = 0, **more: Any) -> dict[str, Any]:
    """A compute part."""
    return {"name": name, "compute": {"time_s": time_s, "spread_ratio": spread}, **more}


def all_reduce(name: str, size: int | str = "64KiB", **more: Any) -> dict[str, Any]:
    """An all-reduce; keys of the collective and of the part may both be given."""
    own = {key: more.pop(key) for key in ("group", "algorithm", "launch") if key in more}
    return {
        "name": name,
        "collective": {"collective": "all_reduce", "size_bytes": size, **own},
        **more,
    }


def step_of(*parts: dict[str, Any], gpus: int = 8, **more: Any) -> StepDocument:
    """A step of these parts."""
    plain = {"kind": "step", "schema_version": 1, "name": "s", "gpus": gpus, "parts": list(parts)}
    return step_from_document({**plain, **more}, where="test")


def run(step: StepDocument, *, noise: NoiseName = NoiseName.NONE, **more: Any) -> StepSummary:
    """A step on packed H100s, without noise of the fabric where nothing else is said."""
    fabric = h100(max(1, step.gpus // 8))
    return simulate_step(step, fabric, pack(fabric, step.gpus), noise=noise, **more)
