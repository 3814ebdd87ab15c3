"""Fleets with something special, made from healthy synthetic ones."""

from collections.abc import Callable, Iterable
from typing import Any

from fleet import Cable, CableEnd, FleetMap, LinkLayer, Node, Switch, fleet_from_spec
from fleet.fields import SwitchId
from fleet.model import Deviation
from topology.fabric.from_fleet import Fabric


def changed(fleet: FleetMap, **fields: Any) -> FleetMap:
    """The map with other fields, checked again."""
    kept = {name: getattr(fleet, name) for name in FleetMap.model_fields}
    return FleetMap(**kept | fields)


def with_nodes(spec: str, change: Callable[[int, Node], dict[str, Any]]) -> Fabric:
    """A synthetic fleet whose nodes are changed one by one."""
    fleet = fleet_from_spec(spec)
    nodes = tuple(node.model_copy(update=change(i, node)) for i, node in enumerate(fleet.nodes))
    return Fabric(changed(fleet, nodes=nodes))


def with_first_deviating(spec: str, *deviations: Deviation) -> Fabric:
    """A fleet whose first node lacks some parts or has them otherwise than its shape."""
    gone = {deviation.path for deviation in deviations if deviation.observed is None}

    def change(i: int, node: Node) -> dict[str, Any]:
        if i > 0:
            return {}
        gpus = tuple(gpu for gpu in node.gpus if f"gpus[{gpu.slot}]" not in gone)
        nics = tuple(nic for nic in node.nics if f"nics[{nic.slot}]" not in gone)
        return {"deviations": deviations, "gpus": gpus, "nics": nics}

    return with_nodes(spec, change)


def missing(path: str) -> Deviation:
    """A part that is not there."""
    return Deviation(path=path, expected="present")


def port_down(path: str) -> Deviation:
    """A port that is down."""
    return Deviation(path=f"{path}.state", expected="up", observed="down")


def together(*specs: str) -> FleetMap:
    """The nodes and NVLink switches of some synthetic fleets on one leaf, one cable each."""
    fleets = [fleet_from_spec(spec) for spec in specs]
    nodes = tuple(node for fleet in fleets for node in fleet.nodes)
    switches = [s for fleet in fleets for s in fleet.switches if s.nvlink_domain is not None]
    leaf = Switch(id=SwitchId("leaf"), link_layer=LinkLayer.INFINIBAND, tier=0)
    return FleetMap(
        kind="fleet_map",
        schema_version=1,
        shapes=tuple(shape for fleet in fleets for shape in fleet.shapes),
        nodes=nodes,
        switches=(*switches, leaf),
        cables=tuple(_host_cables(nodes)),
    )


def _host_cables(nodes: Iterable[Node]) -> Iterable[Cable]:
    for i, node in enumerate(nodes):
        near = CableEnd(device=node.host, nic=0, port=1)
        yield Cable(a=near, b=CableEnd(device="leaf", port=i + 1), bytes_per_s=50e9)


EMPTY = FleetMap(kind="fleet_map", schema_version=1)
