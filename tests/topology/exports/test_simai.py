"""SimAI: one layer that does nothing but the collective."""

import pytest

from tests.topology.exports.factories import TWO_NODES, case_of
from topology.errors import WorkloadError
from topology.exports.simai import simai_product
from topology.words import Collective


def test_a_workload_is_one_layer_with_one_collective() -> None:
    case = case_of(TWO_NODES, ranks=16, size_bytes=1 << 20)
    ((name, parts),) = simai_product(case, "x").files()
    header, count, layer = b"".join(parts).decode().splitlines()
    assert name == "workload.txt"
    assert header.startswith("HYBRID_TRANSFORMER_FWD_IN_BCKWD model_parallel_NPU_group: 16 ep: 1 ")
    assert "all_gpus: 16" in header
    assert count == "1"
    # Name, dependency, then compute time, collective and bytes forward; nothing backward.
    assert layer.split() == [
        *("collective", "-1"),
        *("1", "ALLREDUCE", "1048576"),
        *("1", "NONE", "0"),
        *("1", "NONE", "0"),
        "1",
    ]


def test_the_command_has_the_rates_of_the_map() -> None:
    (command,) = simai_product(case_of(TWO_NODES, ranks=16), "x").commands
    assert "-g 16 -g_p_s 8 -n_p_s 8 -nv 364.5 -nic 37.5" in command


def test_a_rate_that_no_message_needs_is_called_unused() -> None:
    figures = {figure.name: figure for figure in simai_product(case_of(), "x").figures}
    assert figures["-nv"].source == "nvlink4_nvswitch"
    assert "unused" in figures["-nic"].source


def test_its_algorithms_are_its_own_so_any_of_ours_will_do() -> None:
    product = simai_product(case_of(algorithm="nvls"), "x")
    assert "ours is nvls" in product.differs[0]


@pytest.mark.parametrize(
    ("collective", "word"),
    [(Collective.ALL_GATHER, "ALLGATHER"), (Collective.REDUCE_SCATTER, "REDUCESCATTER")],
)
def test_collectives_have_aicbs_words(collective: Collective, word: str) -> None:
    ((_, parts),) = simai_product(case_of(collective=collective), "x").files()
    assert f" {word} 1024 " in b"".join(parts).decode()


def test_a_collective_it_has_not_is_refused() -> None:
    case = case_of(collective=Collective.BROADCAST, algorithm="tree")
    with pytest.raises(WorkloadError, match="no broadcast"):
        simai_product(case, "x")


def test_nodes_with_unequal_ranks_are_refused() -> None:
    with pytest.raises(WorkloadError, match="simai knows equal ones only"):
        simai_product(case_of(TWO_NODES, ranks=12), "x")
