"""Words for the parts of a fabric: tiers, rails, rates, what joins the GPUs of a node."""

from collections.abc import Sequence

from fleet import HostName
from fleet.units import text_from_rate
from topology.diagram.layout import Role
from topology.fabric.domains import scale_up_ends
from topology.fabric.from_fleet import Fabric, FabricNode
from topology.fabric.graph import links_between
from topology.fabric.report import TIER_NAMES


def bus_of(node: FabricNode) -> tuple[str, tuple[str, ...], Role]:
    """What joins the GPUs of a node: link kind, texts by length, colour."""
    slot = node.graph.slots[0]
    ends = scale_up_ends(node.graph, slot)
    if not ends:
        near = next(iter(node.graph.graph.successors(f"gpu{slot}")), None)
        links = links_between(node.graph.graph, f"gpu{slot}", near) if near else []
        if not links:
            return "pcie", ("wiring not reported",), Role.SHADE
        rate = text_from_rate(links[0].bytes_per_s)
        return (
            links[0].kind,
            (f"PCIe, {rate} from each GPU", f"PCIe, {rate}", "PCIe"),
            Role.PCIE_SHADE,
        )
    kind = links_between(node.graph.graph, f"gpu{slot}", ends[0])[0].kind
    rate = text_from_rate(max(node.graph.scale_up.values()))
    what = "Infinity Fabric" if kind == "xgmi" else "NVLink"
    how = "NVSwitches" if "switch" in ends[0] else f"{what} between GPUs"
    how = "NVLink switches of the rack" if ends[0].startswith("domain_switch") else how
    texts = (f"{how}, {rate} from each GPU", f"{how}, {rate}", f"{what}, {rate}", what)
    return kind, texts, Role.NVLINK_SHADE


def rails_text(fabric: Fabric, leaves: Sequence[str]) -> str:
    """Rails of some leaves, by the NICs that hang on them."""
    rails = set()
    wanted = set(leaves)
    for (host, slot), attachment in fabric.network.leaf_of.items():
        if attachment.leaf in wanted:
            nics = fabric.node_of[HostName(host)].graph.wiring.nics
            rails |= {p.rail for nic in nics if nic.slot == slot for p in nic.ports}
    known = sorted(rail for rail in rails if rail is not None)
    if not known or len(known) != known[-1] - known[0] + 1:
        return ""
    return f", rail {known[0]}" + (f"-{known[-1]}" if len(known) > 1 else "")


def rate_text(bytes_per_s: float) -> str:
    """A bandwidth that may be that of many links together.

    >>> rate_text(50e9), rate_text(12.8e12)
    ('50 GB/s', '12.8 TB/s')
    """
    if bytes_per_s >= 1e12:
        return f"{bytes_per_s / 1e12:,.4g} TB/s"
    return text_from_rate(bytes_per_s)


def tier_name(tier: int) -> str:
    """What a tier's switches are called."""
    return TIER_NAMES.get(tier, f"tier {tier} switch")
