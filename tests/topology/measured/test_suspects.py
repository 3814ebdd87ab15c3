"""What can be wrong with a job: which faults each job can have, and what they do to its curve."""

import numpy as np
import pytest

from fleet import fleet_from_spec
from topology.collective.placement import pack
from topology.fabric.from_fleet import Fabric
from topology.fabric.route_table import RouteMap
from topology.latency.calibration import NO_CALIBRATION, Calibration, Interval, Reach, Region
from topology.latency.job import job_of
from topology.latency.operation import Operation
from topology.measured.diagnosis import Expectation
from topology.measured.suspects import PCIE_RATIO, Settings, expect, rails_of
from topology.words import AlgorithmName, Collective, Protocol

SIZES = 8.0 * 4.0 ** np.arange(14)
NARROW = NO_CALIBRATION.model_copy(
    update={
        "interval": tuple(
            Interval(
                reach=reach, region=region, low_ratio=0.9, high_ratio=1.2, points=9, machines=3
            )
            for reach in Reach
            for region in Region
        )
    }
)


def expected(
    spec: str,
    ranks: int,
    *,
    collective: Collective = Collective.ALL_REDUCE,
    settings: Settings | None = None,
    calibration: Calibration = NARROW,
) -> Expectation:
    fabric = Fabric(fleet_from_spec(spec))
    placement = pack(fabric, ranks)
    return expect(
        job_of(fabric, placement, RouteMap(fabric, placement.endpoints)),
        Operation(collective),
        SIZES,
        rails=rails_of(fabric, placement.endpoints),
        settings=settings or Settings(),
        calibration=calibration,
    )


def curves(found: Expectation) -> dict[str, "np.ndarray[tuple[int], np.dtype[np.float64]]"]:
    """How many times slower than healthy each fault is, by size."""
    return {variant.name: variant.predicted_s / found.predicted_s for variant in found.variants}


def test_four_nodes_of_eight_rails_can_lose_rails_rdma_nvlink_and_the_switch() -> None:
    slower = curves(expected("model:dgx-h100 node:4", 32))
    assert set(slower) >= {
        "one_rail_missing",
        "one_rail_shared",
        "one_nic_only",
        "gpudirect_off",
        "sockets",
        "slow_sockets",
        "nvls_off",
        "pcie_path",
        "no_peer_access",
        "ll_forced",
        "simple_forced",
    }
    assert slower["simple_forced"][0] > 1.2
    assert slower["ll_forced"][0] == pytest.approx(1.0, abs=0.01)


def test_an_all_reduce_over_two_nodes_needs_less_than_its_rails() -> None:
    """A node sends its buffer once each way: the switch inside is narrower than seven rails."""
    slower = curves(expected("model:dgx-h100 node:2", 16))
    assert "one_rail_missing" not in slower
    assert {"one_rail_shared", "one_nic_only"} <= set(slower)


def test_a_lost_rail_does_not_narrow_the_ports_that_are_left() -> None:
    """8 KiB are one piece of a tree, which crosses one port, however many there are."""
    slower = curves(expected("model:dgx-h100 node:4", 32))
    at = int(np.flatnonzero(SIZES == 8192.0)[0])
    assert slower["one_rail_shared"][at] == pytest.approx(1, abs=0.02)
    assert slower["one_rail_missing"][at] == pytest.approx(1, abs=0.02)


def test_a_gather_is_slower_by_the_share_of_the_rails_that_is_lost() -> None:
    found = expected("model:dgx-h100 node:2", 16, collective=Collective.ALL_GATHER)
    large = {name: ratio[-1] for name, ratio in curves(found).items()}
    assert large["one_rail_missing"] == pytest.approx(8 / 7, rel=0.05)
    assert large["one_rail_shared"] == pytest.approx(2, rel=0.1)
    # Less than 8: what a large operation takes besides its bytes stays as it is.
    assert large["one_nic_only"] == pytest.approx(8, rel=0.15)
    assert large["slow_sockets"] > large["sockets"] > 8


def test_one_node_has_no_network_to_lose() -> None:
    slower = curves(expected("model:dgx-h100 node:1", 8))
    assert set(slower) & {"one_nic_only", "sockets", "gpudirect_off"} == set()
    assert slower["nvls_off"][-1] > 1.1
    assert slower["pcie_path"][-1] > 4


def test_a_machine_without_nvlink_cannot_lose_it() -> None:
    slower = curves(expected("model:pcie-l40s node:1", 4))
    assert set(slower) & {"nvls_off", "pcie_path"} == set()


def test_a_forced_protocol_is_no_suspect() -> None:
    forced = Settings(AlgorithmName.RING, Protocol.SIMPLE)
    slower = curves(expected("model:dgx-h100 node:1", 8, settings=forced))
    assert not [name for name in slower if name.endswith("_forced")]


def test_the_interval_is_that_of_the_calibration() -> None:
    found = expected("model:dgx-h100 node:1", 8)
    assert found.low_s == pytest.approx(found.predicted_s * 0.9)
    assert found.high_s == pytest.approx(found.predicted_s * 1.2)
    assert len(found.ways) == len(SIZES)


def test_without_a_calibration_the_interval_is_a_factor_of_two() -> None:
    found = expected("model:dgx-h100 node:1", 8, calibration=NO_CALIBRATION)
    assert found.high_s == pytest.approx(found.predicted_s * 2)
    assert found.extrapolated is not None


def test_pcie_and_many_nodes_widen_the_upper_end() -> None:
    pcie = expected("model:pcie-l40s node:1", 4)
    assert pcie.high_s == pytest.approx(pcie.predicted_s * PCIE_RATIO)
    many = expected("model:dgx-h100 node:32", 256)
    assert many.high_s == pytest.approx(many.predicted_s * 1.2**2)


def test_rails_are_the_nics_of_the_ranks_of_a_node() -> None:
    fabric = Fabric(fleet_from_spec("model:dgx-h100 node:2"))
    assert rails_of(fabric, pack(fabric, 16).endpoints) == 8
    assert rails_of(fabric, pack(fabric, 2).endpoints) == 2


def test_every_fault_names_what_to_look_at() -> None:
    found = expected("model:dgx-h100 node:2", 16)
    assert all(variant.check and variant.suspect for variant in found.variants)
