import pytest

from fleet.model import Cable, FleetMap
from fleet.wiring import LinkState
from tests.topology.fabric.factories import cable, fleet_of, hosts_of, joined, leaf
from topology.fabric.cable_columns import CableColumns, columns_from_fleet


def columns_of(*cables: Cable) -> CableColumns:
    fleet = joined(hosts_of(2, nics=2), (leaf("a"), leaf("b")), cables).fleet
    return columns_from_fleet(fleet)


def rows(columns: CableColumns) -> list[tuple[object, object]]:
    """Both ends of each cable by name."""
    names = [
        [
            columns.switches[switch] if switch >= 0 else columns.nics[nic]
            for switch, nic in zip(side.tolist(), columns.nic.tolist(), strict=True)
        ]
        for side in columns.ends
    ]
    return list(zip(*names, strict=True))


def test_cables_stand_by_device_and_port_whatever_the_maps_order_is() -> None:
    first, second = cable(("h0", 1), "a"), cable(("h1", 0), "b")
    trunk, other = cable("a", "b", port=2), cable("a", "b", port=1, bytes_per_s=25e9)
    columns = columns_of(second, trunk, first, other)
    assert rows(columns) == [
        ("a", "b"),
        ("a", "b"),
        (("h0", 1), "a"),
        (("h1", 0), "b"),
    ]
    assert columns.bytes_per_s.tolist() == [25e9, 50e9, 50e9, 50e9]
    assert columns.is_trunk.tolist() == [True, True, False, False]


def test_without_ports_the_maps_order_does_not_matter_either() -> None:
    made = [cable("a", "b", port=p, bytes_per_s=rate) for p, rate in ((1, 50e9), (2, 25e9))]
    made += [cable((f"h{host}", nic), "a", port=3) for host in (1, 0) for nic in (1, 0)]
    ends = [
        (c.a.model_copy(update={"port": None}), c.b.model_copy(update={"port": None})) for c in made
    ]
    blind = [c.model_copy(update={"a": a, "b": b}) for c, (a, b) in zip(made, ends, strict=True)]
    one, other = columns_of(*blind), columns_of(*blind[::-1])
    assert rows(one) == rows(other)
    assert one.bytes_per_s.tolist() == other.bytes_per_s.tolist() == [25e9, *[50e9] * 5]


def test_a_cable_that_begins_at_the_switch_is_its_nics_as_well() -> None:
    assert rows(columns_of(cable("a", ("h0", 0)))) == [("a", ("h0", 0))]


@pytest.mark.parametrize(
    "left_out",
    [
        cable(("h0", 0), ("h1", 0)),
        cable(("h0", 0), "a", state=LinkState.DOWN),
    ],
    ids=["host to host", "down"],
)
def test_what_is_no_cable_of_the_network_is_left_out(left_out: Cable) -> None:
    columns = columns_of(left_out)
    assert (rows(columns), columns.cabled_nics()) == ([], {})


def test_cabled_nics_are_those_with_a_cable_that_is_up() -> None:
    columns = columns_of(
        cable(("h0", 0), "a"),
        cable(("h0", 1), "a", state=LinkState.DOWN, port=2),
        cable(("h1", 1), "a", state=LinkState.UNREPORTED, port=3),
    )
    assert columns.cabled_nics() == {"h0": frozenset({0}), "h1": frozenset({1})}


def test_ports_beyond_any_machine_integer_are_put_in_order_too() -> None:
    late, early = (cable("a", "b", port=10**30 + i, bytes_per_s=25e9 + i) for i in (1, 0))
    assert columns_of(late, early).bytes_per_s.tolist() == [25e9, 25e9 + 1]


def test_cables_of_nvlink_switches_are_left_out() -> None:
    fleet: FleetMap = fleet_of("model:gb200-nvl72 rack:1")
    chip = next(switch.id for switch in fleet.switches if switch.nvlink_domain is not None)
    more = (*fleet.cables, cable(("gb200-001", 0), chip))
    columns = columns_from_fleet(fleet.model_copy(update={"cables": more}))
    assert chip not in columns.switches
    assert len(columns.nic) == len(columns_from_fleet(fleet).nic)
