"""Cases for the tests: a collective on the first GPUs of a synthetic fleet."""

from functools import cache

from fleet import fleet_from_spec
from tests.topology.exports.goal_reader import Goal, read_goal
from topology.collective.placement import pack
from topology.exports.case import Case, make_case
from topology.exports.goal import goal_text
from topology.fabric.from_fleet import Fabric
from topology.latency.scenario import Scenario
from topology.words import AlgorithmName, Collective, StackName

NODE = "model:dgx-h100 node:1"
TWO_NODES = "model:dgx-h100 node:2"


@cache
def fabric_of(spec: str) -> Fabric:
    return Fabric(fleet_from_spec(spec))


def case_of(
    spec: str = NODE,
    *,
    ranks: int = 8,
    collective: Collective = Collective.ALL_REDUCE,
    algorithm: str = "ring",
    size_bytes: int = 1024,
    stack: str = "wire",
) -> Case:
    fabric = fabric_of(spec)
    scenario = Scenario(
        collective,
        size_bytes,
        algorithm=AlgorithmName(algorithm),
        stack=StackName(stack),
    )
    return make_case(fabric, pack(fabric, ranks), scenario, command="topology simulate ...")


def text_of(case: Case) -> str:
    text, _ = goal_text(case)
    blocks = (part for rank in range(text.ranks) for part in text.block(rank))
    return text.header + "".join(blocks)


def goal_of(case: Case) -> Goal:
    return read_goal(text_of(case))
