"""Jobs of synthetic maps: cliques, kinds of links and their rates, from data sheets."""

import pytest

from fleet import GpuVendor
from fleet.wiring import NumaNode, Wiring
from tests.topology.fabric.factories import fabric_of as any_fabric
from tests.topology.fabric.factories import (
    fleet_of,
    make_gpu,
    node_graph,
    rewired,
    with_cables_down,
)
from tests.topology.latency.factories import fabric_of
from tests.topology.latency.jobs import job_on
from topology.collective.placement import Placement, pack, placement_from_text
from topology.errors import UnreachableError
from topology.fabric.from_fleet import Fabric
from topology.fabric.route_table import RouteMap
from topology.latency.job import (
    Architecture,
    Cpu,
    IntraKind,
    Job,
    NetKind,
    architecture_of,
    cpu_of,
    job_of,
)


def job_at(fabric: Fabric, text: str) -> Job:
    """The job of a placement in words, ``host slot`` a line."""
    placement = placement_from_text(fabric, text, where="test")
    return job_of(fabric, placement, RouteMap(fabric, placement.endpoints))


# Inside a clique.


def test_a_dgx_h100_is_one_clique_behind_switches_that_reduce() -> None:
    job = job_on("dgx-h100 node:1", 8)
    assert (job.ranks, job.cliques, job.per_clique) == (8, 1, 8)
    assert job.architecture is Architecture.HOPPER
    assert job.intra is not None
    assert job.intra.kind is IntraKind.NVSWITCH
    assert job.intra.bytes_per_s == 18 * 25e9
    assert job.net is None
    assert job.reduces_in_switch


@pytest.mark.parametrize(("gpus", "links"), [(2, 1), (3, 2), (4, 4), (8, 6)])
def test_in_a_mesh_the_gpu_with_the_fewest_links_to_the_others_counts(
    gpus: int, links: int
) -> None:
    """DGX-1: GPU 0 has links to 1 (one), 2 (one), 3 (two), 4 (two); all six lead somewhere."""
    intra = job_on("dgx1-v100 node:1", gpus).intra
    assert intra is not None
    assert intra.kind is IntraKind.NVLINK
    assert intra.bytes_per_s == links * 25e9


def test_four_gh200_are_joined_without_a_switch() -> None:
    job = job_on("gh200-quad node:1", 4)
    assert job.intra is not None
    assert job.intra.kind is IntraKind.NVLINK
    assert job.intra.bytes_per_s == 450e9
    assert not job.reduces_in_switch
    assert job.cpu is Cpu.ARM


def test_amds_boards_are_joined_by_xgmi() -> None:
    job = job_on("mi300x node:1", 8)
    assert job.architecture is Architecture.CDNA
    assert job.intra is not None
    assert job.intra.kind is IntraKind.XGMI
    assert job.intra.bytes_per_s == 7 * 64e9


def test_cards_are_as_slow_as_the_slowest_neighbours() -> None:
    """L40S: two below a switch at PCIe 4.0 x16, but half of that from socket to socket."""
    pair, board = (job_on("pcie-l40s node:1", gpus) for gpus in (2, 8))
    assert pair.intra is not None
    assert board.intra is not None
    assert (pair.intra.kind, board.intra.kind) == (IntraKind.PCIE, IntraKind.PCIE)
    assert pair.intra.bytes_per_s == 31.5e9
    assert board.intra.bytes_per_s < pair.intra.bytes_per_s
    assert board.is_pcie


def test_bridged_cards_have_nvlink_as_a_pair_only() -> None:
    pair, four = (job_on("pcie-a100-nvlink node:1", gpus).intra for gpus in (2, 4))
    assert pair is not None
    assert four is not None
    assert (pair.kind, four.kind) == (IntraKind.NVLINK, IntraKind.PCIE)
    assert pair.bytes_per_s == 300e9


def test_a_rank_alone_has_no_links_inside() -> None:
    job = job_on("gh200 node:4", 4)
    assert (job.cliques, job.per_clique, job.intra) == (4, 1, None)


# Between cliques.


def test_two_racks_are_two_cliques_of_72() -> None:
    one, two = (job_on(f"gb200-nvl72 rack:{racks}", 72 * racks) for racks in (1, 2))
    assert (one.cliques, one.per_clique, one.net) == (1, 72, None)
    assert (two.cliques, two.per_clique) == (2, 72)
    assert two.net is not None
    assert two.net.bytes_per_s == 72 * 50e9


@pytest.mark.parametrize(
    ("spec", "ranks", "kind", "bytes_per_s"),
    [
        ("dgx-h100 node:2", 16, NetKind.INFINIBAND, 8 * 50e9),
        ("dgx-a100 node:2", 16, NetKind.INFINIBAND, 8 * 25e9),
        ("dgx1-v100 node:2", 16, NetKind.INFINIBAND, 4 * 12.5e9),
        ("gh200-quad node:2", 8, NetKind.SLINGSHOT, 4 * 25e9),
        ("gh200 node:2", 2, NetKind.INFINIBAND, 50e9),
        ("mi300x node:2", 16, NetKind.ROCE, 8 * 50e9),
        ("dgx-h100 node:2 network:efa nic:32 nic_rate:100Gbit/s", 16, NetKind.EFA, 32 * 12.5e9),
        ("beowulf-2006 node:4", 4, NetKind.ETHERNET, 0.125e9),
    ],
)
def test_a_cliques_network_is_the_sum_of_its_nics(
    spec: str, ranks: int, kind: NetKind, bytes_per_s: float
) -> None:
    net = job_on(spec, ranks).net
    assert net is not None
    assert net.kind is kind
    assert net.bytes_per_s == pytest.approx(bytes_per_s)


def test_half_a_nodes_gpus_have_half_its_nics() -> None:
    fabric = fabric_of("dgx-a100 node:2")
    hosts = [node.host for node in fabric.nodes]
    job = job_at(fabric, "".join(f"{host} {slot}\n" for host in hosts for slot in range(4)))
    assert (job.cliques, job.per_clique) == (2, 4)
    assert job.net is not None
    assert job.net.bytes_per_s == 4 * 25e9


def test_the_clique_with_the_fewest_nics_holds_up_the_others() -> None:
    """12 ranks: eight on one node, four on the next."""
    job = job_on("dgx-a100 node:2", 12)
    assert (job.cliques, job.per_clique) == (2, 8)
    assert job.net is not None
    assert job.net.bytes_per_s == 4 * 25e9


@pytest.mark.parametrize(("order", "share"), [((0, 1, 2, 3), 1), ((0, 2, 1, 3), 2)])
def test_a_crowded_uplink_narrows_the_network(order: tuple[int, ...], share: int) -> None:
    """Two leaves a rail, two nodes and one uplink a leaf: a ring in order crosses it once."""
    fabric = fabric_of("dgx-h100 node:4 leaf:16 oversubscription:2")
    hosts = [fabric.nodes[number].host for number in order]
    job = job_at(fabric, "".join(f"{host} {slot}\n" for host in hosts for slot in range(8)))
    assert job.net is not None
    assert job.net.bytes_per_s == 8 * 50e9 / share


def test_cpu_nodes_without_gpus_are_ranks_of_no_architecture() -> None:
    job = job_on("beowulf-2006 node:4", 4)
    assert (job.cliques, job.architecture, job.intra) == (4, Architecture.UNREPORTED, None)


def mixed(capability: str) -> Job:
    """Two DGX H100, the GPUs of the second of another kind."""

    def change(host: str, wiring: Wiring) -> Wiring:
        if host == "h100-001":
            return wiring
        told = {"compute_capability": capability, "product_name": None}
        gpus = tuple(gpu.model_copy(update=told) for gpu in wiring.gpus)
        return wiring.model_copy(update={"gpus": gpus})

    fabric = Fabric(rewired(fleet_of("model:dgx-h100 node:2"), change))
    placement = pack(fabric, 16)
    return job_of(fabric, placement, RouteMap(fabric, placement.endpoints))


def test_ll128_needs_one_kind_of_gpu_or_hopper_and_newer_alone() -> None:
    assert mixed("9.0").has_ll128
    assert mixed("10.0").has_ll128
    assert not mixed("8.0").has_ll128
    assert mixed("8.0").cliques == 2
    assert not job_on("dgx1-p100 node:1", 8).has_ll128


def test_nodes_that_no_network_joins_are_no_job() -> None:
    fabric = Fabric(with_cables_down(fleet_of("model:dgx-h100 node:2"), lambda _: True))
    with pytest.raises(UnreachableError, match="h100-001"):
        job_at(fabric, "h100-001 0\nh100-002 0\n")


# What a GPU and a CPU are.


def architecture(capability: str | None, vendor: GpuVendor = GpuVendor.NVIDIA) -> Architecture:
    gpu = make_gpu(0, compute_capability=capability, vendor=vendor)
    return architecture_of(node_graph(Wiring(gpus=(gpu,))), 0)


@pytest.mark.parametrize(
    ("capability", "name"),
    [
        ("6.0", Architecture.PASCAL),
        ("7.0", Architecture.VOLTA),
        ("7.5", Architecture.VOLTA),
        ("8.0", Architecture.AMPERE),
        ("8.6", Architecture.AMPERE),
        ("8.9", Architecture.ADA),
        ("9.0", Architecture.HOPPER),
        ("10.3", Architecture.BLACKWELL),
        ("12.0", Architecture.BLACKWELL),
        ("5.2", Architecture.UNREPORTED),
        (None, Architecture.UNREPORTED),
        ("9.0a", Architecture.UNREPORTED),
        ("1.2.3", Architecture.UNREPORTED),
    ],
)
def test_a_generation_is_told_by_compute_capability(
    capability: str | None, name: Architecture
) -> None:
    assert architecture(capability) is name


def test_an_amd_gpu_is_cdna_whatever_it_reports() -> None:
    assert architecture("9.4", GpuVendor.AMD) is Architecture.CDNA
    assert architecture("gfx942", GpuVendor.AMD) is Architecture.CDNA


@pytest.mark.parametrize(
    ("facts", "cpu"),
    [
        ({"vendor": "GenuineIntel"}, Cpu.INTEL),
        ({"vendor": "AuthenticAMD", "model": "AMD EPYC 7742"}, Cpu.AMD),
        ({"model": "Intel(R) Xeon(R) Platinum 8480C"}, Cpu.INTEL),
        ({"architecture": "aarch64"}, Cpu.ARM),
        ({"model": "POWER9"}, Cpu.UNREPORTED),
        ({}, Cpu.UNREPORTED),
    ],
)
def test_a_cpu_is_told_by_its_vendor_or_model(facts: dict[str, str], cpu: Cpu) -> None:
    numa = NumaNode.model_validate({"numa": 0, **facts})
    assert cpu_of(node_graph(Wiring(numa_nodes=(numa,)))) is cpu


def test_a_placements_order_does_not_change_its_job() -> None:
    fabric = fabric_of("dgx-h100 node:2")
    ends = pack(fabric, 16).endpoints
    turned = Placement(ends[8:] + ends[:8])
    assert job_of(fabric, turned, RouteMap(fabric, turned.endpoints)) == job_on(
        "dgx-h100 node:2", 16
    )


def test_a_map_that_is_loaded_again_has_the_same_job() -> None:
    again = any_fabric("model:dgx-h100 node:2")
    placement = pack(again, 16)
    assert job_of(again, placement, RouteMap(again, placement.endpoints)) == job_on(
        "dgx-h100 node:2", 16
    )
