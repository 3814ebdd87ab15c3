"""Terms: with priors alone they are NCCL's own model; each names figures that a fit may move."""

from dataclasses import replace
from itertools import product

import pytest

from tests.topology.latency.jobs import EIGHT_NDR, H100_NVLINK, PCIE4, V100_NVLINK, job_on, make_job
from topology.errors import ScheduleError
from topology.latency.calibrated_figures import FIGURE_GROUPS, group_of
from topology.latency.job import Architecture, Cpu, Job, NetKind
from topology.latency.model import make_model, ways_of
from topology.latency.nccl_figures import load_nccl_figures
from topology.latency.nccl_tuner import NVLS, NVLS_TREE, PAT, RING, TREE, NcclTuner, Way
from topology.latency.operation import Operation
from topology.latency.terms import (
    Part,
    Term,
    launch_term,
    point_to_point_bytes_per_s,
    terms_of,
)
from topology.measured.fitting import prior_log_error
from topology.words import AlgorithmName, Collective, Launch, Protocol

LL, SIMPLE = Protocol.LL, Protocol.SIMPLE
AR, AG = Collective.ALL_REDUCE, Collective.ALL_GATHER
DIRECT_SIMPLE = Way(AlgorithmName.DIRECT, SIMPLE)


def tuner(job: Job, collective: Collective = AR) -> NcclTuner:
    return NcclTuner(job, collective, load_nccl_figures())


def terms(job: Job, way: Way, operation: Operation | None = None) -> tuple[Term, ...]:
    operation = operation or Operation(AR)
    return terms_of(tuner(job, operation.collective), way, operation)


def fixed_us(found: tuple[Term, ...]) -> float:
    return sum(term.fixed_s for term in found) * 1e6


def of_part(found: tuple[Term, ...], part: Part) -> list[Term]:
    return [term for term in found if term.part is part]


# Against NCCL's own model.


@pytest.mark.parametrize("cliques", [1, 2, 8, 64])
@pytest.mark.parametrize("cpu", [Cpu.INTEL, Cpu.AMD])
@pytest.mark.parametrize("algorithm", [RING, TREE])
@pytest.mark.parametrize("protocol", list(Protocol))
def test_what_does_not_grow_with_bytes_is_nccls_latency(
    cliques: int, cpu: Cpu, algorithm: AlgorithmName, protocol: Protocol
) -> None:
    job, way = make_job(cliques, cpu=cpu), Way(algorithm, protocol)
    assert fixed_us(terms(job, way)) == pytest.approx(tuner(job).latency_s(way) * 1e6)


@pytest.mark.parametrize(
    ("job", "way", "collective"),
    [
        (make_job(), Way(NVLS, SIMPLE), AR),
        (make_job(4), Way(NVLS_TREE, SIMPLE), AR),
        (make_job(8, 1), Way(PAT, SIMPLE), AG),
        (make_job(2), Way(RING, LL), AG),
    ],
    ids=["nvls", "nvls tree", "pat", "all-gather"],
)
def test_other_ways_start_from_nccls_latency_too(
    job: Job, way: Way, collective: Collective
) -> None:
    found = fixed_us(terms(job, way, Operation(collective)))
    assert found == pytest.approx(tuner(job, collective).latency_s(way) * 1e6)


@pytest.mark.parametrize("way", ways_of(make_job(2), Operation(AR)), ids=lambda way: way.text)
def test_a_byte_costs_what_nccl_counts(way: Way) -> None:
    (bandwidth,) = of_part(terms(make_job(2), way), Part.BANDWIDTH)
    assert bandwidth.per_byte_s == pytest.approx(1 / tuner(make_job(2)).bytes_per_s(way))
    assert bandwidth.bends is (way.algorithm is TREE)


def test_between_nodes_a_tree_counts_part_of_a_doubling() -> None:
    """NCCL's tree jumps at powers of two; a tree over 5 nodes lies between 4 and 8."""
    four, five, eight = (fixed_us(terms(make_job(n), Way(TREE, LL))) for n in (4, 5, 8))
    assert four < five < eight


def test_a_hop_is_never_faster_than_its_wire() -> None:
    """LL: 2.7 us on the network by NCCL's constant, 18 us by EFA's wire."""
    slow = replace(EIGHT_NDR, kind=NetKind.EFA, alpha_s=18e-6)
    (hops,) = of_part(terms(make_job(2, net=slow), Way(RING, LL)), Part.NET_HOPS)
    assert hops.fixed_s == pytest.approx(2 * 18e-6)
    assert hops.wire_s == pytest.approx(hops.fixed_s)


def test_the_wire_is_part_of_a_hops_constant() -> None:
    found = terms(make_job(2), Way(RING, SIMPLE))
    assert of_part(found, Part.NET_HOPS)[0].wire_s == pytest.approx(2 * 2.3e-6)
    assert of_part(found, Part.HOPS)[0].wire_s == pytest.approx(28 * 0.762e-6)
    assert all(term.wire_s <= term.fixed_s for term in found)


# Ramps and pipelines.


def test_ll_needs_no_ramp_and_all_else_does() -> None:
    assert not of_part(terms(make_job(), Way(RING, LL)), Part.RAMP)
    for way in (Way(RING, SIMPLE), Way(NVLS, SIMPLE), Way(TREE, Protocol.LL128)):
        (ramp,) = of_part(terms(make_job(), way), Part.RAMP)
        assert ramp.per_root_byte_s > 0


def test_between_nodes_a_trees_piece_crosses_pcie_and_one_nic_at_every_hop() -> None:
    """Two hops for a doubling; one of eight NICs carries 50 GB/s, half of it flags by LL."""
    job = make_job(2, net=replace(EIGHT_NDR, nics=8))
    (fill,) = of_part(terms(job, Way(TREE, LL)), Part.FILL)
    assert fill.per_piece_byte_s == pytest.approx(2 * 2 / 25e9)
    assert fill.piece_bytes == 65536
    crowded = replace(job, net=replace(EIGHT_NDR, bytes_per_s=100e9, port_bytes_per_s=50e9))
    assert of_part(terms(crowded, Way(TREE, LL)), Part.FILL) == [fill]
    (simple,) = of_part(terms(job, Way(TREE, SIMPLE)), Part.FILL)
    assert simple.per_piece_byte_s == pytest.approx(2 * 2 / 50e9)
    assert not of_part(terms(make_job(), Way(TREE, LL)), Part.FILL)
    assert not of_part(terms(make_job(2), Way(RING, LL)), Part.FILL)


@pytest.mark.parametrize("collective", [Collective.BROADCAST, Collective.REDUCE])
def test_a_chains_first_pieces_cross_every_hop_one_after_another(collective: Collective) -> None:
    """Seven hops of eight ranks; 24 channels of 512 KiB each are on their way at once, or 12."""
    volta = make_job(architecture=Architecture.VOLTA, intra=V100_NVLINK)
    (older,) = of_part(terms(volta, Way(RING, SIMPLE), Operation(collective)), Part.FILL)
    assert (older.piece_bytes, older.figures[1]) == (12 * 2**19, "fill.chain.nvlink")
    found = terms(make_job(), Way(RING, SIMPLE), Operation(collective))
    (fill,) = of_part(found, Part.FILL)
    (bandwidth,) = of_part(found, Part.BANDWIDTH)
    assert fill.per_piece_byte_s == pytest.approx(7 * bandwidth.per_byte_s)
    assert fill.piece_bytes == 24 * 2**19
    assert not of_part(terms(make_job(), Way(RING, LL), Operation(collective)), Part.FILL)


EFA = replace(EIGHT_NDR, kind=NetKind.EFA, alpha_s=20e-6, declared_s=75e-6)


@pytest.mark.parametrize(
    ("per_clique", "collective"), [(8, AR), (8, AG), (1, AG), (8, Collective.BROADCAST)]
)
def test_a_plug_in_costs_an_operation_its_declared_latency_once(
    per_clique: int, collective: Collective
) -> None:
    """And no hop: those are as long as the wire, or as NCCL's constant."""
    job = replace(make_job(4, per_clique, net=EFA), network_reduces=True)
    for way in ways_of(job, Operation(collective)):
        found = terms(job, way, Operation(collective))
        (plug_in,) = [term for term in found if term.figures[0] == "plugin"]
        assert plug_in == Term(Part.BASE, ("plugin", "plugin.efa"), fixed_s=75e-6)
        bare = replace(job, net=replace(EFA, declared_s=0.0))
        assert fixed_us(found) - fixed_us(terms(bare, way, Operation(collective))) == (
            pytest.approx(75)
        )


@pytest.mark.parametrize(("nodes", "measured_us"), [(2, 163.4), (4, 319.4), (8, 631.3)])
def test_rings_over_efa_grow_by_hops_as_published(nodes: int, measured_us: float) -> None:
    """8 V100 a node, 100 Gbit/s, 8 B; 2, 4 and 8 nodes of jacobkahn's gists, NCCL 2.4."""
    job = job_on(f"dgx1-v100 node:{nodes} network:efa-v1 nic:1 nic_rate:100Gbit/s", 8 * nodes)
    told = make_model(job, Operation(AR), algorithm=RING).predict(8.0)
    assert told.time_s * 1e6 == pytest.approx(measured_us, rel=0.1)


@pytest.mark.parametrize("collective", [Collective.BROADCAST, Collective.REDUCE])
def test_a_chain_crosses_the_network_between_its_nodes(collective: Collective) -> None:
    """Three crossings of four nodes, none faster than its wire; 28 hops inside."""
    job, operation = make_job(4, net=EFA), Operation(collective)
    found = terms(job, Way(RING, LL), operation)
    (across,) = of_part(found, Part.NET_HOPS)
    assert (across.fixed_s, across.wire_s) == (pytest.approx(60e-6), pytest.approx(60e-6))
    (inside,) = of_part(found, Part.HOPS)
    assert inside.wire_s == pytest.approx(28 * 0.762e-6)
    assert inside.fixed_s >= inside.wire_s


# In the switch.


def test_four_gpus_sum_in_the_switch_no_faster_than_eight() -> None:
    """A link carries (1 + 1/n) S; NCCL's count, 2 (n-1)/n S, holds for eight."""
    per_byte_s = {
        n: of_part(terms(make_job(1, n), Way(NVLS, SIMPLE)), Part.BANDWIDTH)[0].per_byte_s
        for n in (4, 8)
    }
    assert per_byte_s[4] / per_byte_s[8] == pytest.approx((1 + 1 / 4) / (1 + 1 / 8))
    assert per_byte_s[8] == pytest.approx(1 / tuner(make_job()).bytes_per_s(Way(NVLS, SIMPLE)))


def test_more_than_eight_gpus_behind_one_switch_count_as_eight() -> None:
    eight, many = (terms(make_job(1, n), Way(NVLS, SIMPLE)) for n in (8, 72))
    for part in (Part.BANDWIDTH, Part.RAMP):
        assert of_part(eight, part) == of_part(many, part)


def test_fewer_parts_fill_up_sooner() -> None:
    four, eight = (terms(make_job(1, n), Way(NVLS, SIMPLE)) for n in (4, 8))
    root = [of_part(found, Part.RAMP)[0].per_root_byte_s for found in (four, eight)]
    per_byte = [of_part(found, Part.BANDWIDTH)[0].per_byte_s for found in (four, eight)]
    assert root[0] / root[1] == pytest.approx(0.5 * (per_byte[0] / per_byte[1]) ** 0.5)


@pytest.mark.parametrize("cliques", [2, 4])
def test_across_nodes_a_sum_in_the_switch_costs_what_nccl_counts(cliques: int) -> None:
    job, way = make_job(cliques), Way(NVLS_TREE, SIMPLE)
    (bandwidth,) = of_part(terms(job, way), Part.BANDWIDTH)
    assert bandwidth.per_byte_s == pytest.approx(1 / tuner(job).bytes_per_s(way))


# Launch.


def launch(style: Launch, per_clique: int = 8, library: str = "") -> Term:
    return launch_term(make_job(1, per_clique), Operation(AR, style, library=library))


def test_a_graph_starts_faster_than_a_process() -> None:
    assert launch(Launch.GRAPH).fixed_s < launch(Launch.PROCESS).fixed_s
    assert launch(Launch.THREADS).fixed_s == launch(Launch.PROCESS).fixed_s


def test_one_thread_starts_its_nodes_gpus_one_after_another() -> None:
    assert launch(Launch.THREAD).fixed_s == pytest.approx(8 * launch(Launch.PROCESS).fixed_s)
    assert launch(Launch.THREAD, 2).fixed_s == pytest.approx(2 * launch(Launch.PROCESS).fixed_s)


def test_a_slow_launch_runs_beside_the_operation() -> None:
    blocking = {style for style in Launch if launch(style).blocks}
    assert blocking == {Launch.THREAD, Launch.EAGER}


def test_an_eager_launch_is_its_cpus_and_its_librarys() -> None:
    assert launch(Launch.EAGER).figures == (
        "launch.eager",
        "launch.eager.intel",
        "launch.eager.torch",
    )
    assert "launch.eager.vllm" in launch(Launch.EAGER, library="vllm").figures


# Point to point, custom kernels.


@pytest.mark.parametrize(
    ("job", "collective", "gb_per_s"),
    [
        (make_job(), Collective.ALLTOALL, 370.8 * 8 / 7),
        (make_job(2), Collective.ALLTOALL, 384 / 8 * 16 / 8),
        (make_job(4, 1), Collective.ALLTOALL, 384 * 4 / 3),
        (make_job(), Collective.SENDRECV, 370.8),
        (make_job(4, 1), Collective.SENDRECV, 384),
    ],
    ids=["node", "nodes", "alone", "neighbours", "alone to alone"],
)
def test_an_exchange_is_as_fast_as_links_inside_and_shares_of_nics(
    job: Job, collective: Collective, gb_per_s: float
) -> None:
    found = point_to_point_bytes_per_s(tuner(job, collective), collective)
    assert found == pytest.approx(gb_per_s * 1e9)


@pytest.mark.parametrize(("nics", "gb_per_s"), [(8, 48), (32, 48), (4, 96), (2, 192), (1, 370.8)])
def test_one_rank_sends_through_the_nics_nearest_to_it(nics: int, gb_per_s: float) -> None:
    """Eight GPUs and 400 GB/s: a NIC each, four each, or one for several of them."""
    job = make_job(2, net=replace(EIGHT_NDR, nics=nics))
    found = point_to_point_bytes_per_s(tuner(job, Collective.SENDRECV), Collective.SENDRECV)
    assert found == pytest.approx(gb_per_s * 1e9)


def test_ranks_started_eagerly_wait_for_each_other_but_a_pair_that_sends_does_not() -> None:
    assert launch_term(make_job(1, 2), Operation(AR, Launch.EAGER)).blocks
    eager = Operation(Collective.SENDRECV, Launch.EAGER)
    assert launch_term(make_job(1, 2), eager) == launch_term(
        make_job(1, 2), Operation(Collective.SENDRECV, Launch.PROCESS)
    )


def test_a_peer_across_costs_its_proxys_posts_of_a_send_and_a_receive() -> None:
    """Eight of 15 peers are across; Intel's proxy takes 1 us a post, AMD's 2."""
    operation = Operation(Collective.ALLTOALL)
    for cpu, post_s in ((Cpu.INTEL, 1e-6), (Cpu.AMD, 2e-6)):
        (peers,) = of_part(terms(make_job(2, cpu=cpu), DIRECT_SIMPLE, operation), Part.HOPS)
        assert peers.fixed_s == pytest.approx(7 * 0.15e-6 + 8 * 2 * post_s)
    pair = Operation(Collective.SENDRECV)
    (one,) = of_part(terms(make_job(2, 1), DIRECT_SIMPLE, pair), Part.HOPS)
    assert one.fixed_s == pytest.approx(2e-6)


def test_every_further_peer_costs_something_and_sendrecv_has_one() -> None:
    (eight,) = of_part(terms(make_job(), DIRECT_SIMPLE, Operation(Collective.ALLTOALL)), Part.HOPS)
    (one,) = of_part(terms(make_job(), DIRECT_SIMPLE, Operation(Collective.SENDRECV)), Part.HOPS)
    assert eight.fixed_s == pytest.approx(7 * one.fixed_s)


def test_one_shot_reads_all_buffers_and_two_shot_shares_of_them() -> None:
    one, two = (
        of_part(terms(make_job(), Way(name, None)), Part.BANDWIDTH)[0].per_byte_s
        for name in (AlgorithmName.ONE_SHOT, AlgorithmName.TWO_SHOT)
    )
    assert one == pytest.approx(7 / 370.8e9)
    assert two == pytest.approx(2 * 7 / 8 / 370.8e9)


# Figures.

JOBS = [
    make_job(cliques, per_clique, architecture=architecture, intra=intra, net=net)
    for cliques, per_clique in ((1, 2), (1, 8), (4, 8), (4, 1))
    for architecture in (Architecture.VOLTA, Architecture.HOPPER, Architecture.UNREPORTED)
    for intra in (H100_NVLINK, PCIE4)
    for net in (EIGHT_NDR, replace(EIGHT_NDR, kind=NetKind.ETHERNET), EFA)
]


def all_terms() -> list[Term]:
    found: list[Term] = []
    for job, collective, style in product(JOBS, Collective, Launch):
        operation = Operation(collective, style, library="vllm")
        for way in ways_of(job, operation, custom=True):
            found += terms_of(tuner(job, collective), way, operation)
    return found


def test_every_figure_has_a_prior_and_a_description() -> None:
    names = {name for term in all_terms() for name in term.figures}
    assert len(names) > 100
    assert all(0 < prior_log_error(name) < 1 for name in names)
    assert {group_of(name) for name in names} == set(FIGURE_GROUPS)


def test_no_figure_stands_twice_in_a_term_and_no_term_is_negative() -> None:
    for term in all_terms():
        assert len(set(term.figures)) == len(term.figures)
        values = (term.fixed_s, term.per_byte_s, term.per_root_byte_s, term.per_piece_byte_s)
        assert min(values) >= 0, term


def test_an_in_switch_sum_without_a_switch_is_refused_before_any_term() -> None:
    with pytest.raises(ScheduleError, match="nvls"):
        ways_of(make_job(intra=PCIE4), Operation(AR), algorithm=NVLS)
