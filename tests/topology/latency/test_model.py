"""The closed form: its terms add up, it obeys what is forced, it says what it does not know."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.topology.latency.jobs import H100_NVLINK, PCIE4, job_on, make_job
from topology.errors import ScheduleError
from topology.latency.calibration import (
    KIB,
    MIB,
    NO_CALIBRATION,
    Calibration,
    Covered,
    FittedFigure,
    Interval,
    Reach,
    Region,
)
from topology.latency.job import Architecture, Cpu, Job
from topology.latency.model import (
    CalibratedWay,
    Model,
    Prediction,
    blocked_s,
    make_model,
    ways_of,
)
from topology.latency.nccl_figures import load_nccl_figures
from topology.latency.nccl_tuner import NVLS, NVLS_TREE, RING, TREE, NcclTuner, Way
from topology.latency.operation import Operation
from topology.latency.terms import terms_of
from topology.words import AlgorithmName, Collective, Launch, Protocol

AR = Collective.ALL_REDUCE
SIZES = st.integers(1, 2**34)
JOBS = st.builds(
    make_job,
    st.sampled_from([1, 2, 3, 16]),
    st.sampled_from([2, 4, 8]),
    architecture=st.sampled_from([Architecture.VOLTA, Architecture.HOPPER, Architecture.BLACKWELL]),
    cpu=st.sampled_from([Cpu.INTEL, Cpu.AMD]),
    intra=st.sampled_from([H100_NVLINK, PCIE4]),
)
OPERATIONS = st.builds(
    Operation, st.sampled_from(list(Collective)), st.sampled_from(list(Launch)), st.booleans()
)


def model(job: Job, operation: Operation | None = None, **settings: object) -> Model:
    settings = {"calibration": NO_CALIBRATION, **settings}
    return make_model(job, operation or Operation(AR), **settings)  # type: ignore[arg-type]


def with_factors(job: Job, operation: Operation, seed: int) -> Calibration:
    """Factors between a third and three for all figures of an operation."""
    rng = np.random.default_rng(seed)
    tuner = NcclTuner(job, operation.collective, load_nccl_figures())
    found = (terms_of(tuner, way, operation) for way in ways_of(job, operation, custom=True))
    names = sorted({name for terms in found for term in terms for name in term.figures})
    factors = np.exp(rng.uniform(-1, 1, len(names)))
    figures = {
        name: FittedFigure(factor=factor, log_error=0.1, prior_log_error=0.3, points=1)
        for name, factor in zip(names, factors.tolist(), strict=True)
    }
    return NO_CALIBRATION.model_copy(update={"figure": figures})


# Terms.


@given(JOBS, OPERATIONS, SIZES, st.integers(0, 9))
def test_terms_add_up_to_the_time_and_none_is_negative(
    job: Job, operation: Operation, size: int, seed: int
) -> None:
    told = model(job, operation, calibration=with_factors(job, operation, seed)).predict(size)
    assert sum(told.terms) == pytest.approx(told.time_s, rel=1e-9)
    assert min(told.terms) >= -1e-9 * told.time_s


@given(JOBS, OPERATIONS, SIZES, st.integers(0, 9))
def test_one_size_takes_as_long_as_among_many(
    job: Job, operation: Operation, size: int, seed: int
) -> None:
    """The same way, too: also where custom kernels compete."""
    calibration = with_factors(job, operation, seed)
    for custom in (False, True):
        many = model(job, operation, calibration=calibration, custom=custom)
        sizes = np.array([float(size)])
        told = many.predict(size)
        assert told.time_s == pytest.approx(float(many.times_s(sizes)[0]), rel=1e-12)
        assert told.way == many.ways[int(many.choice(sizes)[0])].way


@given(JOBS, OPERATIONS, SIZES, st.floats(1, 64), st.booleans())
def test_more_bandwidth_is_never_slower(
    job: Job, operation: Operation, size: int, times: float, inside: bool
) -> None:
    """Way by way: which one NCCL takes may change for the worse."""
    links = "intra" if inside or job.net is None else "net"
    was = getattr(job, links)
    wider = replace(job, **{links: replace(was, bytes_per_s=was.bytes_per_s * times)})
    before, after = model(job, operation), model(wider, operation)
    for old, new in zip(before.alternatives(size), after.alternatives(size), strict=True):
        assert new.time_s <= old.time_s * (1 + 1e-12), old.way


@given(JOBS, OPERATIONS, SIZES, SIZES)
def test_on_one_way_more_bytes_take_longer(job: Job, operation: Operation, a: int, b: int) -> None:
    """But for trees, whose bandwidth NCCL's table bends in steps."""
    told = model(job, operation)
    pairs = zip(told.alternatives(min(a, b)), told.alternatives(max(a, b)), strict=True)
    for small, large in pairs:
        if small.way.algorithm is not TREE:
            assert small.time_s <= large.time_s


@given(st.integers(4, 33), st.floats(1, 1.99))
def test_within_a_row_of_its_table_a_tree_takes_longer_for_more_bytes(
    doublings: int, more: float
) -> None:
    told = model(make_job(2), algorithm=TREE)
    sizes = np.array([2.0**doublings, 2.0**doublings * more])
    for way in told.ways:
        first, second = way.time_s(sizes, told.tuner)
        assert first <= second


@given(JOBS, SIZES)
def test_a_graph_is_no_slower_than_a_process(job: Job, size: int) -> None:
    graph, process = (
        model(job, Operation(AR, launch)).predict(size).time_s
        for launch in (Launch.GRAPH, Launch.PROCESS)
    )
    assert graph < process


def test_sixteen_h100s_take_what_nccl_says_where_nothing_is_calibrated() -> None:
    """Tree LL, 8 B: 25.2 us, and almost no bytes."""
    told = model(job_on("dgx-h100 node:2", 16), algorithm=TREE, protocol=Protocol.LL).predict(8)
    assert told.time_s == pytest.approx(25.2e-6, abs=0.05e-6)
    assert told.terms.launch_s == pytest.approx(2.67e-6)
    assert told.terms.wire_s == pytest.approx(2 * (7 * min(0.6e-6, 0.762e-6) + 2.3e-6))


# Launch beside the operation.


@pytest.mark.parametrize(("own", "blocking"), [(10.0, 90.0), (90.0, 10.0), (50.0, 50.0)])
def test_what_runs_beside_its_launch_takes_nearly_the_longer(own: float, blocking: float) -> None:
    (together,) = blocked_s(np.array([own]), blocking)
    assert max(own, blocking) < together <= max(own, blocking) * 2**0.25


def test_one_thread_for_eight_gpus_matters_for_short_operations_only() -> None:
    """8 x 2.67 = 21.4 us to start: more than LL's 12.3 us beside it, nothing beside 2 ms."""
    thread = model(make_job(), Operation(AR, Launch.THREAD))
    process = model(make_job(), Operation(AR))
    assert 21.36e-6 < thread.predict(8).time_s < 22.5e-6
    long_s = process.predict(512 * MIB).time_s
    assert thread.predict(512 * MIB).time_s == pytest.approx(long_s, rel=0.01)


# Which way.


def way_at(told: Model, size: float) -> Way:
    return told.predict(size).way


def test_eight_h100s_go_by_ring_ll_then_by_the_switch() -> None:
    """15.0 us + S / 80.6 GB/s crosses 25 us + S / 272 GB/s at 1.1 MiB."""
    told = model(job_on("dgx-h100 node:1", 8))
    assert way_at(told, 8) == Way(RING, Protocol.LL)
    assert way_at(told, MIB) == Way(RING, Protocol.LL)
    assert way_at(told, 2 * MIB) == Way(NVLS, Protocol.SIMPLE)


def test_integers_are_not_summed_in_the_switch() -> None:
    told = model(make_job(), Operation(AR, is_integer=True))
    assert all(way.way.algorithm is not NVLS for way in told.ways)
    gather = model(make_job(), Operation(Collective.ALL_GATHER, is_integer=True))
    assert any(way.way.algorithm is NVLS for way in gather.ways)


@pytest.mark.parametrize("protocol", [None, *Protocol])
@pytest.mark.parametrize("algorithm", [RING, TREE])
def test_a_forced_way_is_taken_at_every_size(
    algorithm: AlgorithmName, protocol: Protocol | None
) -> None:
    told = model(make_job(2), algorithm=algorithm, protocol=protocol)
    for size in (8, 64 * KIB, MIB, 2**30):
        way = way_at(told, size)
        assert way.algorithm is algorithm
        assert protocol in (None, way.protocol)


@pytest.mark.parametrize(
    ("job", "algorithm", "protocol", "problem", "remedy"),
    [
        (make_job(2), NVLS, None, "by nvls here", "nvls_tree, simple"),
        (make_job(), NVLS_TREE, None, "by nvls_tree here", "nvls, simple"),
        (make_job(), NVLS, Protocol.LL, "by nvls, ll here", "nvls, simple"),
        (make_job(intra=PCIE4), RING, Protocol.LL128, "by ring, ll128 here", "ring, simple"),
        (make_job(2), AlgorithmName.ONE_SHOT, None, "by one_shot here", "ring, ll"),
    ],
)
def test_what_nccl_has_not_is_refused_with_what_it_has(
    job: Job, algorithm: AlgorithmName, protocol: Protocol | None, problem: str, remedy: str
) -> None:
    with pytest.raises(ScheduleError) as caught:
        model(job, algorithm=algorithm, protocol=protocol)
    assert problem in str(caught.value)
    assert remedy in str(caught.value)


@pytest.mark.parametrize(
    ("collective", "peers"), [(Collective.ALLTOALL, 8), (Collective.SENDRECV, 1)]
)
def test_exchanges_go_by_ll_up_to_16_kib_a_peer(collective: Collective, peers: int) -> None:
    told = model(make_job(), Operation(collective))
    limit = 16 * KIB * peers
    assert way_at(told, limit).protocol is Protocol.LL
    assert way_at(told, limit + peers).protocol is Protocol.SIMPLE


@pytest.mark.parametrize(("library", "most_mib"), [("sglang", 16), ("trtllm", 8), ("", 8)])
def test_custom_kernels_end_with_their_buffers(library: str, most_mib: int) -> None:
    """Factors that make them ten times faster than anything NCCL has."""
    fast = FittedFigure(factor=0.1, log_error=0.1, prior_log_error=0.1, points=1)
    names = [
        name
        for way in ("one_shot", "two_shot")
        for name in (way, f"bandwidth.way.{way}.custom.nvlink")
    ]
    figures = dict.fromkeys(names, fast)
    calibration = NO_CALIBRATION.model_copy(update={"figure": figures})
    told = model(
        make_job(1, 2), Operation(AR, library=library), custom=True, calibration=calibration
    )
    assert way_at(told, most_mib * MIB).protocol is None
    assert way_at(told, most_mib * MIB + 1).protocol is not None


def test_custom_kernels_are_taken_only_where_they_are_asked_for() -> None:
    assert all(way.way.protocol is not None for way in model(make_job()).ways)
    assert any(way.way.protocol is None for way in model(make_job(), custom=True).ways)
    forced = model(make_job(), algorithm=AlgorithmName.TWO_SHOT)
    assert way_at(forced, 2**30) == Way(AlgorithmName.TWO_SHOT, None)


@pytest.mark.parametrize("library", ["vllm", "sglang", "trtllm"])
def test_over_pcie_alone_frameworks_have_kernels_for_two_gpus_only(library: str) -> None:
    """Unless they are forced: more GPUs than two go by NCCL."""
    operation = Operation(AR, library=library)
    for ranks, has_kernels in ((2, True), (4, False), (8, False)):
        job = make_job(1, ranks, intra=PCIE4)
        own = [way.way.protocol is None for way in model(job, operation, custom=True).ways]
        assert any(own) is has_kernels
    forced = model(make_job(1, 8, intra=PCIE4), operation, algorithm=AlgorithmName.ONE_SHOT)
    assert way_at(forced, KIB) == Way(AlgorithmName.ONE_SHOT, None)


def test_every_way_is_told_beside_the_one_that_is_taken() -> None:
    told = model(make_job(2))
    ways = [way.way for way in told.alternatives(MIB)]
    assert way_at(told, MIB) in ways
    assert len(ways) == len(set(ways)) == len(told.ways)
    nccl = {way.way: way.nccl_s for way in told.alternatives(MIB)}
    assert min(nccl, key=lambda way: nccl[way]) == way_at(told, MIB)


def test_one_rank_alone_is_refused() -> None:
    for collective in Collective:
        with pytest.raises(ScheduleError, match="one rank alone"):
            model(make_job(1, 1), Operation(collective))


# NCCL's own prediction.


def test_the_baseline_is_nccls_own_model_with_its_terms() -> None:
    told = model(job_on("dgx-h100 node:2", 16), algorithm=TREE, protocol=Protocol.LL).baseline(128)
    assert told.time_s == pytest.approx(25.2e-6, abs=0.02e-6)
    assert sum(told.terms) == pytest.approx(told.time_s)
    assert (told.terms.launch_s, told.interval, told.extrapolated) == (0, None, None)


def test_a_calibration_does_not_move_the_baseline() -> None:
    job = make_job(2)
    moved = model(job, calibration=with_factors(job, Operation(AR), 1))
    for size in (8, MIB, 2**30):
        assert moved.baseline(size).time_s == model(job).baseline(size).time_s


def test_nccl_has_no_model_of_exchanges() -> None:
    with pytest.raises(ScheduleError, match="--stack nccl"):
        model(make_job(), Operation(Collective.ALLTOALL)).baseline(MIB)


# What it does not know.


def covered(**changes: object) -> Covered:
    told = {
        "link": "nvswitch",
        "architecture": "hopper",
        "least_bytes": 8.0,
        "most_bytes": 2.0**30,
        "most_cliques": 1,
        "most_ranks": 8,
        "points": 100,
    }
    return Covered.model_validate({**told, **changes})


def knows(*rows: Covered) -> Calibration:
    row = FittedFigure(factor=1.0, log_error=0.1, prior_log_error=0.1, points=1)
    names = [f"bandwidth.collective.all_reduce.{medium}" for medium in ("nvlink", "pci", "net")]
    figures = dict.fromkeys(names, row)
    return NO_CALIBRATION.model_copy(update={"covered": rows, "figure": figures})


@pytest.mark.parametrize(
    ("row", "job", "size", "text"),
    [
        (covered(), make_job(), MIB, None),
        (covered(), make_job(), 8, None),
        (covered(), make_job(), 4, "no measurement over nvswitch below 8 bytes"),
        (covered(), make_job(), 2**31, "no measurement over nvswitch above 1073741824 bytes"),
        (covered(link="pcie"), make_job(), MIB, "no measurement over nvswitch"),
        (
            covered(architecture="ampere"),
            make_job(),
            MIB,
            "no measurement over nvswitch with hopper GPUs",
        ),
        (
            covered(most_ranks=4),
            make_job(),
            MIB,
            "measured over nvswitch up to 4 ranks, this is 8",
        ),
        (
            covered(link="ib", most_cliques=4, most_ranks=32),
            make_job(8),
            MIB,
            "measured over ib up to 4 nodes, this is 8",
        ),
        (covered(link="ib", most_cliques=4, most_ranks=32), make_job(4), MIB, None),
    ],
)
def test_what_no_measurement_covers_is_called_extrapolated(
    row: Covered, job: Job, size: int, text: str | None
) -> None:
    assert model(job, calibration=knows(row)).predict(size).extrapolated == text


def test_a_collective_that_nobody_measured_over_a_network_is_extrapolated() -> None:
    calibration = knows(covered(link="ib", most_cliques=4, most_ranks=32))
    broadcast = model(make_job(4), Operation(Collective.BROADCAST), calibration=calibration)
    assert broadcast.predict(MIB).extrapolated == "no measurement of broadcast over ib"


def test_without_any_measurement_all_is_extrapolated() -> None:
    assert model(make_job()).predict(MIB).extrapolated == "no measurement over nvswitch"


def test_an_interval_is_of_the_sizes_region_and_the_jobs_reach() -> None:
    rows = tuple(
        Interval(reach=reach, region=region, low_ratio=low, high_ratio=high, points=20, machines=2)
        for reach, region, low, high in (
            (Reach.ONE_NODE, Region.TINY, 0.5, 2.0),
            (Reach.ONE_NODE, Region.LARGE, 0.9, 1.2),
            (Reach.ACROSS_NODES, Region.TINY, 0.25, 4.0),
        )
    )
    calibration = NO_CALIBRATION.model_copy(update={"interval": rows})

    def ratios(job: Job, size: int) -> tuple[float, ...] | None:
        told: Prediction = model(job, calibration=calibration).predict(size)
        if told.interval is None:
            return None
        return tuple(round(end / told.time_s, 9) for end in told.interval)

    assert ratios(make_job(), 8) == (0.5, 2.0)
    assert ratios(make_job(), 64 * MIB) == (0.9, 1.2)
    assert ratios(make_job(2), 8) == (0.25, 4.0)
    assert ratios(make_job(), MIB) is None


# Sameness.


@settings(max_examples=20)
@given(JOBS, OPERATIONS, SIZES)
def test_a_job_is_predicted_the_same_twice(job: Job, operation: Operation, size: int) -> None:
    assert model(job, operation).predict(size) == model(replace(job), operation).predict(size)


def test_a_factor_moves_exactly_its_terms() -> None:
    """Doubling ring LL's hops on 8 GPUs: 14 more hops of 0.6 us, no byte and no launch more."""
    row = FittedFigure(factor=2, log_error=0.1, prior_log_error=0.4, points=1)
    moved = NO_CALIBRATION.model_copy(update={"figure": {"hop.nvlink.ll": row}})
    before, after = (
        model(make_job(), algorithm=RING, protocol=Protocol.LL, calibration=c).predict(MIB)
        for c in (NO_CALIBRATION, moved)
    )
    assert after.time_s - before.time_s == pytest.approx(14 * 0.6e-6)
    assert after.terms.launch_s == before.terms.launch_s
    assert after.terms.bandwidth_s == pytest.approx(before.terms.bandwidth_s)


def test_a_way_adds_its_parts() -> None:
    """Launch, none that blocks, fixed, of it wire; then per byte, root, and byte of a piece."""
    way = CalibratedWay(
        Way(RING, Protocol.LL), 1.0, 0.0, 2.0, 1.0, 0.5, 0.25, 0.125, piece_bytes=65536, bends=False
    )
    assert way.one_s(16.0, None) == 1 + 2 + 8 + 1 + 2
    large = 2.0**20
    assert way.one_s(large, None) == 3 + large / 2 + 256 + 65536 / 8
