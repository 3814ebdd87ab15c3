import re
from collections import Counter
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from fleet.agent.board import Board, Edition, Page, Readings, Spooled
from fleet.agent.metrics import LONGEST_LABEL, Family, Kind, page_from_samples
from fleet.agent.metrics_agent import agent_samples
from fleet.agent.metrics_node import node_samples
from fleet.faults import device_faults
from fleet.fields import Absence, AbsenceReason
from fleet.model import FabricState, NodeSnapshot, NvlinkFabric
from fleet.state import GpuState, NicState
from fleet.wiring import LinkState
from tests.factories import make_gpu, make_identity, make_port, make_snapshot, make_wiring
from tests.fleet.agent.nodes import READ_AT, busy_node, faulty_node

UNITS = re.compile(r"_(bytes|bytes_per_second|seconds|celsius|watts|ratio|total|info)$")
TRUTHS = {
    "fleetmap_up",
    "fleetmap_nvlink_up",
    "fleetmap_nic_port_up",
    "fleetmap_nic_port_state",
    "fleetmap_reader_wedged",
    "fleetmap_unlisted_gpu",
    "fleetmap_device_fault",
    "fleetmap_gpu_fabric_state",
    "fleetmap_gpu_fabric_health",
    "fleetmap_gpu_clocks_reason",
    "fleetmap_gpu_recovery_action",
    "fleetmap_gpu_mig_enabled",
    "fleetmap_gpu_ecc_enabled",
    "fleetmap_gpu_remapped_rows_pending",
    "fleetmap_gpu_remapped_rows_failure",
}
COUNTS = {
    "fleetmap_gpus",
    "fleetmap_device_faults",
    "fleetmap_absences",
    "fleetmap_gpu_processes",
    "fleetmap_gpu_idle_processes",
    "fleetmap_gpu_pcie_generation",
    "fleetmap_gpu_pcie_width",
}
LABELS = {
    "gpu", "uuid", "product", "pci_address", "port", "nic", "device", "logical", "physical",
    "state", "domain", "reason", "action", "summary", "since", "kind", "why", "host", "driver",
    "cuda", "section", "source", "version", "python", "result", "code",
}  # fmt: skip
EDITION = Edition("node1", 8, (), Page(b"", b"", ""), b"", read_at_s=100.0, took_s=0.5)


def page_of(snapshot: NodeSnapshot) -> str:
    return page_from_samples(node_samples(snapshot, device_faults(snapshot))).decode()


def parsed(text: str) -> dict[str, Metric]:
    """Families by name, as Prometheus' own parser reads them."""
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(text: str, name: str, **labels: str) -> float | None:
    """The one sample of a name that has these labels among its own; None: there is none."""
    found = [
        sample.value
        for family in parsed(text).values()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert len(found) <= 1, (name, labels, found)
    return found[0] if found else None


def own_page(board: Board, *, now_s: float = 130.0, is_fresh: bool = True) -> str:
    return page_from_samples(agent_samples(board, now_s=now_s, is_fresh=is_fresh)).decode()


def full_board() -> Board:
    board = Board(
        edition=EDITION,
        readings=Readings(good=7, failed=2, running_since_s=128.0, wedged_since=READ_AT),
        spooled=Spooled(good=6, failed=1, last_good_s=110.0),
    )
    board.answered.update({200: 5, 404: 1})
    return board


PAGES = {
    "busy": page_of(busy_node()),
    "faulty": page_of(faulty_node()),
    "bare": page_of(make_snapshot()),
    "no GPUs": page_of(make_snapshot(wiring=make_wiring(0, 0))),
    "agent": own_page(full_board()),
    "new agent": own_page(Board(), is_fresh=False),
}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_prometheus_reads_every_sample_of_a_page_once(page: str) -> None:
    samples = [s for family in text_string_to_metric_families(page) for s in family.samples]
    lines = [line for line in page.splitlines() if not line.startswith("#")]
    assert len(samples) == len(lines) > 0
    keys = Counter((sample.name, tuple(sorted(sample.labels.items()))) for sample in samples)
    assert [key for key, count in keys.items() if count > 1] == []


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_every_family_has_one_help_and_one_type_before_its_samples(page: str) -> None:
    seen: list[str] = []
    for line in page.splitlines():
        if line.startswith("# HELP "):
            seen.append(line.split()[2])
            assert len(line.split()) > 3
        elif line.startswith("# TYPE "):
            assert line.split()[2] == seen[-1]
            assert line.split()[3] in ("gauge", "counter")
        else:
            assert re.split(r"[{ ]", line)[0] == seen[-1]
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_every_name_tells_its_unit(page: str) -> None:
    for line in page.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name.startswith("fleetmap_")
            assert UNITS.search(name) or name in TRUTHS | COUNTS, name
            assert name.endswith("_total") is (kind == "counter"), name


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_truths_are_one_or_zero(page: str) -> None:
    for family in text_string_to_metric_families(page):
        if family.name in TRUTHS or family.name.endswith("_info"):
            assert {sample.value for sample in family.samples} <= {0.0, 1.0}, family.name


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_labels_are_names_and_words_of_closed_sets(page: str) -> None:
    labels = {
        name for f in text_string_to_metric_families(page) for s in f.samples for name in s.labels
    }
    assert labels <= LABELS


def test_no_process_user_or_free_text_is_shown() -> None:
    page = PAGES["busy"] + PAGES["faulty"]
    for private in ("4242", "train.py", "ada", "said twice", "GPU is lost"):
        assert private not in page


def test_numbers_of_a_gpu_are_those_of_the_snapshot() -> None:
    page, gpu = PAGES["busy"], {"gpu": "3", "uuid": "GPU-node1-3"}
    assert value(page, "fleetmap_gpu_memory_bytes", **gpu) == 85_520_809_984
    assert value(page, "fleetmap_gpu_memory_used_bytes", **gpu) == 12_000_000_003
    assert value(page, "fleetmap_gpu_busy_ratio", **gpu) == 0.75
    assert value(page, "fleetmap_gpu_temperature_celsius", **gpu) == 61
    assert value(page, "fleetmap_gpu_power_watts", **gpu) == 512.25
    assert value(page, "fleetmap_gpu_pcie_replays_total", **gpu) == 3
    assert value(page, "fleetmap_gpu_remapped_rows_pending", **gpu) == 1
    assert value(page, "fleetmap_gpu_remapped_rows_failure", **gpu) == 0
    ecc = "fleetmap_gpu_ecc_errors_total"
    assert value(page, ecc, since="aggregate", kind="corrected", **gpu) == 7
    assert value(page, ecc, since="volatile", kind="uncorrected", **gpu) == 0
    assert value(page, "fleetmap_gpu_processes", **gpu) == 1
    assert value(page, "fleetmap_gpu_idle_processes", **gpu) == 0
    assert value(page, "fleetmap_gpu_idle_processes", gpu="0") == 1


def test_a_word_of_a_closed_set_is_one_and_the_others_are_zero() -> None:
    page = PAGES["busy"]
    reason, action = "fleetmap_gpu_clocks_reason", "fleetmap_gpu_recovery_action"
    assert value(page, reason, gpu="0", reason="sw_power_cap") == 1
    assert value(page, reason, gpu="0", reason="hw_thermal") == 0
    assert value(page, action, gpu="0", action="reset_gpu") == 1
    assert value(page, action, gpu="0", action="none") == 0
    assert value(page, "fleetmap_gpu_fabric_state", gpu="0", state="single_node") == 1
    assert value(page, "fleetmap_gpu_fabric_health", gpu="0", summary="unhealthy") == 0


def test_ports_and_nics_are_told() -> None:
    page = PAGES["busy"]
    assert value(page, "fleetmap_nvlink_up", gpu="7", port="17") == 1
    assert value(page, "fleetmap_nvlink_bytes_per_second", gpu="7", port="17") == 25e9
    assert value(page, "fleetmap_nvlink_replays_total", gpu="7", port="17") == 17
    nic = {"nic": "2", "port": "1", "device": "mlx5_2"}
    assert value(page, "fleetmap_nic_port_up", **nic) == 1
    assert value(page, "fleetmap_nic_port_bytes_per_second", **nic) == 50e9
    assert value(page, "fleetmap_nic_port_link_downs_total", **nic) == 2
    state = value(page, "fleetmap_nic_port_state", logical="active", physical="linkup", **nic)
    assert state == 1


def test_a_port_that_is_down_is_zero_and_an_unreported_one_has_no_sample() -> None:
    ports = (make_port(0, state=LinkState.DOWN), make_port(1, state=LinkState.UNREPORTED))
    page = page_of(make_snapshot(wiring=make_wiring((make_gpu(0, ports=ports),), 0)))
    assert value(page, "fleetmap_nvlink_up", port="0") == 0
    assert value(page, "fleetmap_nvlink_up", port="1") is None


def test_what_was_not_reported_has_no_sample() -> None:
    snapshot = busy_node(gpus=1, states=(GpuState(slot=0),), nic_states=(), processes=None)
    page = page_of(snapshot)
    shown = set(re.findall(r"^# TYPE (\S+)", page, re.MULTILINE))
    assert shown & {name for name in shown if "temperature" in name or "ecc" in name} == set()
    for name in (
        "fleetmap_gpu_memory_used_bytes",
        "fleetmap_gpu_processes",
        "fleetmap_gpu_busy_ratio",
    ):
        assert name not in shown


def test_a_word_the_kernel_never_said_before_is_other() -> None:
    state = NicState(slot=0, port=1, logical_state="Zombie 17", physical_state="LinkUp")
    page = page_of(busy_node(gpus=0, nics=1, nic_states=(state,)))
    assert value(page, "fleetmap_nic_port_state", logical="other", physical="linkup") == 1
    assert "Zombie" not in page


def test_a_device_that_does_not_answer_is_told_once_with_its_reason() -> None:
    page = PAGES["faulty"]
    assert value(page, "fleetmap_device_faults") == 2
    assert value(page, "fleetmap_device_fault", device="gpu3", reason="gpu_lost") == 1
    assert value(page, "fleetmap_device_fault", device="gpu5", reason="timed_out") == 1
    assert value(page, "fleetmap_unlisted_gpu", why="excluded") == 1
    assert value(page, "fleetmap_absences", reason="unsupported") == 1
    assert value(PAGES["busy"], "fleetmap_device_faults") == 0
    assert value(PAGES["busy"], "fleetmap_absences", reason="gpu_lost") == 0


def test_gpus_are_not_counted_where_the_driver_lists_none_for_a_fault() -> None:
    absence = Absence(path="gpus", reason=AbsenceReason.TIMED_OUT)
    page = page_of(make_snapshot(wiring=make_wiring(0, 0), absences=(absence,)))
    assert value(page, "fleetmap_gpus") is None
    assert value(page, "fleetmap_device_fault", device="GPUs", reason="timed_out") == 1
    assert value(PAGES["no GPUs"], "fleetmap_gpus") == 0


def test_the_domain_is_told_where_the_fabric_joins_nodes() -> None:
    fabric = NvlinkFabric(state=FabricState.DOMAIN, cluster_uuid="cafe", clique=2)
    gpu = make_identity("node1", 0, fabric=fabric)
    page = page_of(make_snapshot(wiring=make_wiring(1, 0), gpus=(gpu,)))
    assert value(page, "fleetmap_gpu_nvlink_domain_info", domain="cafe.2") == 1
    assert "nvlink_domain" not in PAGES["busy"]


def test_the_agent_tells_its_age_and_what_failed() -> None:
    page = PAGES["agent"]
    assert value(page, "fleetmap_up") == 1
    assert value(page, "fleetmap_last_reading_age_seconds") == 30
    assert value(page, "fleetmap_last_reading_duration_seconds") == 0.5
    assert value(page, "fleetmap_reading_running_seconds") == 2
    assert value(page, "fleetmap_readings_total", result="good") == 7
    assert value(page, "fleetmap_readings_total", result="failed") == 2
    assert value(page, "fleetmap_reader_wedged") == 1
    assert value(page, "fleetmap_reader_wedged_timestamp_seconds") == READ_AT.timestamp()
    assert value(page, "fleetmap_spool_writes_total", result="failed") == 1
    assert value(page, "fleetmap_spool_last_write_age_seconds") == 20
    assert value(page, "fleetmap_http_requests_total", code="404") == 1
    assert (value(page, "fleetmap_agent_resident_bytes") or 0) > 10e6


def test_a_new_agent_is_not_up_and_has_no_age() -> None:
    page = PAGES["new agent"]
    assert value(page, "fleetmap_up") == 0
    assert value(page, "fleetmap_last_reading_age_seconds") is None
    assert value(page, "fleetmap_spool_writes_total", result="good") is None


@pytest.mark.parametrize(("failure", "is_fresh"), [("failed", True), (None, False)])
def test_after_a_failed_reading_or_too_long_it_is_not_up(
    failure: str | None, is_fresh: bool
) -> None:
    board = Board(edition=EDITION, readings=Readings(good=1, failure=failure))
    assert value(own_page(board, is_fresh=is_fresh), "fleetmap_up") == 0


def test_ages_are_never_negative() -> None:
    page = own_page(full_board(), now_s=0.0)
    assert value(page, "fleetmap_last_reading_age_seconds") == 0


def test_a_page_of_nothing_is_empty() -> None:
    assert page_from_samples(()) == b""


# The parser ends a line at other characters too than the line feed of the format: not those.
CHARACTERS = st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"))


@given(st.text(CHARACTERS | st.sampled_from('\\\n"{},= #'), max_size=200))
def test_any_text_in_a_label_comes_back(text: str) -> None:
    page = page_from_samples([(Family("a", "b"), (("name", text),), 1)]).decode()
    [family] = text_string_to_metric_families(page)
    assert family.samples[0].labels == {"name": text[:LONGEST_LABEL]}


@given(st.floats() | st.integers(-(2**63), 2**64))
def test_any_number_comes_back(number: float) -> None:
    page = page_from_samples([(Family("a", "b"), (), number)]).decode()
    [family] = text_string_to_metric_families(page)
    assert family.samples[0].value == pytest.approx(float(number), nan_ok=True)


def test_samples_of_a_family_stand_together_whatever_their_order() -> None:
    one, two = Family("one", "1"), Family("two", "2", Kind.COUNTER)
    page = page_from_samples([(one, (), 1), (two, (), 2), (one, (("x", "y"),), 3)]).decode()
    assert page == (
        '# HELP one 1\n# TYPE one gauge\none 1\none{x="y"} 3\n'
        "# HELP two 2\n# TYPE two counter\ntwo 2\n"
    )


def test_a_help_text_stays_in_its_line() -> None:
    page = page_from_samples([(Family("a", "one\ntwo \\ three"), (), 1)])
    assert page.startswith(b"# HELP a one\\ntwo \\\\ three\n")


def test_the_time_of_a_section_is_in_seconds_since_1970() -> None:
    shown = value(PAGES["busy"], "fleetmap_section_timestamp_seconds", section="health")
    assert shown == datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC).timestamp()
