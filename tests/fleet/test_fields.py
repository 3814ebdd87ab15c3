import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from fleet.fields import (
    Absence,
    AbsenceReason,
    FrozenModel,
    Pci,
    is_said,
    leaves,
    path_matches,
    repeated,
    unreported,
)
from fleet.model import Host, NodeSnapshot
from fleet.wiring import GpuPort, GpuSlot, LinkState, PortEnd, Wiring
from tests.factories import absent, make_gpu, make_port, make_snapshot, make_wiring, replaced


class Reading(FrozenModel):
    """A document of two fields."""

    count: int
    rate: float = 1.0


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"count": 1, "cuont": 1}, "cuont"),
        ({"count": "1"}, "integer"),
        ({"count": True}, "integer"),
        ({"count": 1, "rate": float("nan")}, "finite"),
        ({"count": 1, "rate": float("inf")}, "finite"),
        ({}, "required"),
    ],
)
def test_document_is_strict(values: dict[str, object], part: str) -> None:
    with pytest.raises(ValidationError, match=part):
        Reading.model_validate(values)


def test_document_cannot_be_changed() -> None:
    reading = Reading(count=1)
    with pytest.raises(ValidationError, match="frozen"):
        reading.count = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("pattern", "path", "is_match"),
    [
        ("gpus[*].uuid", "gpus[3].uuid", True),
        ("gpus[1]", "gpus[1].uuid", True),
        ("gpus[1]", "gpus[10].uuid", False),
        ("gpus", "gpus[0].uuid", True),
        ("gpus", "gpus_lost", False),
        ("wiring", "wiring.gpus[0].ports[1].version", True),
        ("wiring.gpus[*].ports[*].version", "wiring.gpus[0].ports[gpu3].version", True),
        ("wiring.gpus[*].ports", "wiring.nics[0].ports", False),
        ("gpus[0].uuid", "wiring.gpus[0].uuid", False),
        ("gpus[*].uuid", "gpus[].uuid", False),
        ("sections[*].collected_at", "sections[devices/nvml].collected_at", True),
    ],
)
def test_absence_covers_its_path_and_all_below(pattern: str, path: str, is_match: bool) -> None:
    assert path_matches(pattern, path) is is_match


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_text_is_a_pattern_that_matches_itself(a: str, b: str) -> None:
    assert path_matches(a, a)
    assert path_matches(a, b) in (True, False)


def test_every_leaf_is_said_and_every_unreported_path_is_not() -> None:
    wiring = make_wiring()
    silent = make_gpu(0, memory_bytes=None, ports=0)
    snapshot = make_snapshot(wiring=replaced(wiring, "gpus", (silent, *wiring.gpus[1:])))
    told = [path for path, _ in leaves(snapshot)]
    missing = list(unreported(snapshot))
    assert all(is_said(snapshot, path) for path in told)
    assert not any(is_said(snapshot, path) for path in missing)
    assert "wiring.gpus[0].memory_bytes" in missing
    assert "wiring.gpus[1].ports[1].end.index" in told


def test_leaf_of_a_list_stands_under_its_key_not_its_index() -> None:
    wiring = Wiring(gpus=(make_gpu(5, bridge=None, ports=0),))
    assert ("gpus[5].numa", 0) in list(leaves(wiring))


def test_only_what_a_source_may_report_wants_an_absence() -> None:
    assert set(
        unreported(GpuPort(end=PortEnd.model_validate({"kind": "switch"}, strict=False)))
    ) == {
        "version",
        "bytes_per_s",
    }
    assert "module_id" not in set(unreported(GpuSlot(slot=0)))
    assert "pci_address" in set(unreported(GpuSlot(slot=0)))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("wiring.gpus[*].memory_bytes", True),
        ("wiring.gpus[2].memory_bytes", True),
        ("wiring.gpus[9].memory_bytes", False),
        ("wiring.gpus", True),
        ("wiring.pcie_levels", False),
        ("wiring.colour", False),
        ("versions", False),
        ("versions.driver", False),
        ("wiring.gpus[*].ports[*].state", True),
        ("?", False),
    ],
)
def test_path_is_said_if_all_it_names_is_there(path: str, said: bool) -> None:
    assert is_said(make_snapshot(), path) is said


def test_one_silent_element_makes_the_star_unsaid() -> None:
    wiring = make_wiring()
    port = make_port(0, state=LinkState.UNREPORTED)
    snapshot = make_snapshot(
        wiring=replaced(
            wiring, "gpus", (wiring.gpus[0].model_copy(update={"ports": (port,)}), *wiring.gpus[1:])
        )
    )
    assert not is_said(snapshot, "wiring.gpus[*].ports[*].state")
    assert is_said(snapshot, "wiring.gpus[1].ports[*].state")


def test_an_empty_optional_list_was_said_to_be_empty() -> None:
    assert is_said(make_snapshot(allocations=(), absences=absent("versions")), "allocations")
    assert not is_said(make_snapshot(), "allocations")


def test_repeated_name_is_told_once_for_each_repeat() -> None:
    assert list(repeated("gpus[%s]", ["0", "1", "0", "0"])) == [
        "gpus[0]: stands twice; expected once",
        "gpus[0]: stands twice; expected once",
    ]
    assert list(repeated("gpus[%s]", [])) == []


@pytest.mark.parametrize("name", ["", "-a", ".hidden", "a b", "a/b", "../a", "a\n", "ä", "x" * 254])
def test_host_that_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Host).validate_python(name)


@pytest.mark.parametrize("text", ["0000:18:00.0", "00000000:18:00", "00000000:1G:00.0", "x\n"])
def test_address_in_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Pci).validate_python(text)


def test_reason_outside_the_list_is_refused() -> None:
    with pytest.raises(ValidationError, match="not_asked"):
        Absence.model_validate_json('{"path": "gpus", "reason": "bored"}')
    assert [reason.value for reason in AbsenceReason] == [
        "unsupported",
        "no_permission",
        "driver_too_old",
        "function_missing",
        "timed_out",
        "gpu_lost",
        "undecodable",
        "failed",
        "not_asked",
    ]


def test_snapshot_tells_its_kind_before_anything_else() -> None:
    assert list(NodeSnapshot.model_fields)[:2] == ["kind", "schema_version"]
