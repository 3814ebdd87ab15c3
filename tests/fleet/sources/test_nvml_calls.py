import ctypes
import math
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.probe import binding
from fleet.reading import Answer
from fleet.sources.nvml import refusal_of, snapshot_from_calls
from fleet.sources.nvml_answers import Missing
from fleet.sources.nvml_calls import Calls
from tests.contracts import assert_honest
from tests.fakes.nvml import (
    HOST,
    NOON,
    asked_here,
    detail_of,
    installed,
    reason_of,
    refusal,
    snapshot_of,
)
from tests.fakes.nvml_profiles import FakePlatform, profile_named

H100, V100, GB200 = (profile_named(name) for name in ("h100-8", "v100-2", "gb200-4"))
L40S, T4 = profile_named("l40s-2"), profile_named("t4-1")


@pytest.mark.parametrize(
    ("code", "problem", "remedy"),
    [
        (4, "no permission", "/dev/nvidia"),
        (9, "driver is not loaded", "modprobe nvidia"),
        (18, "different versions", "reboot"),
        (999, "unknown error", "start the container again"),
        (20, "does not answer", "NVRM"),
    ],
)
def test_a_driver_that_does_not_start_is_told_with_a_remedy(
    code: int, problem: str, remedy: str
) -> None:
    told = refusal(replace(H100, init_code=code))
    assert problem in told.problem
    assert remedy in told.remedy


def test_a_driver_that_cannot_count_its_gpus_is_told_and_shut_down() -> None:
    assert "unknown error" in refusal(replace(H100, count_code=999)).problem


def test_a_library_too_old_to_start_is_told() -> None:
    assert "too old" in refusal(H100.lacking("nvmlInitWithFlags")).problem


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot_load(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(pynvml, "CDLL", cannot_load)
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})


@pytest.mark.usefixtures("no_library")
def test_a_node_without_the_library_is_told_what_would_do() -> None:
    told = refusal_of(Calls(asked_here().answers))
    assert told is not None
    assert told.is_absent
    assert told.problem == "libnvidia-ml.so.1 is not found"
    assert told.remedy.startswith("install the NVIDIA driver")


@pytest.mark.parametrize("shell", [SimpleNamespace(), SimpleNamespace(NVMLError=ValueError)])
def test_another_module_named_pynvml_is_told(
    shell: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", shell)
    told = refusal_of(Calls(asked_here().answers))
    assert told is not None
    assert "not that of nvidia-ml-py" in told.problem
    assert not told.is_absent


def test_no_binding_at_all_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    told = refusal_of(Calls(asked_here().answers))
    assert told is not None
    assert "no module pynvml" in told.problem


def test_the_binding_is_left_as_it_was_found() -> None:
    before = (pynvml.nvmlLib, pynvml._nvmlLib_refcount, dict(pynvml._nvmlGetFunctionPointer_cache))
    with installed(H100):
        asked_here()
        assert pynvml._nvmlLib_refcount == before[1]
    after = (pynvml.nvmlLib, pynvml._nvmlLib_refcount, dict(pynvml._nvmlGetFunctionPointer_cache))
    assert after == before


def test_each_call_is_announced_before_it_is_made() -> None:
    with installed(H100):
        kept = asked_here()
    from_memory = "nvmlDeviceGetNvLinkRemoteDeviceType("  # of an address that was asked about
    made = {key for key in kept.answers if not key.startswith(from_memory)}
    assert made <= set(kept.asked)


def test_one_far_end_is_asked_about_once_in_a_reading() -> None:
    with installed(H100) as lib:
        kept = asked_here()
    assert lib.calls.count("nvmlDeviceGetNvLinkRemoteDeviceType") == 4, "one for each NVSwitch"
    types = [k for k in kept.answers if k.startswith("nvmlDeviceGetNvLinkRemoteDeviceType(")]
    assert len(types) == 8 * 18


def test_a_mismatch_outside_the_binding_s_hierarchy_is_caught() -> None:
    assert not issubclass(pynvml.NVMLLibraryMismatchError, pynvml.NVMLError)
    snapshot = snapshot_of(T4)
    assert reason_of(snapshot, "allocations") == "function_missing"


def test_processes_step_down_to_the_second_version() -> None:
    allocations = snapshot_of(V100).allocations
    assert [(a.holder, a.slots) for a in allocations or ()] == [("pid 900", (0,))]


def test_an_undecodable_text_is_kept_as_hex() -> None:
    snapshot = snapshot_of(L40S.with_gpu(1, serial=b"\xff\xfe1"))
    assert snapshot.gpus[1].serial is None
    assert reason_of(snapshot, "gpus[1].serial") == "undecodable"
    assert detail_of(snapshot, "gpus[1].serial").endswith("bytes fffe31")


def test_an_undecodable_version_of_the_driver_does_not_cost_the_node() -> None:
    snapshot = snapshot_of(replace(L40S, driver_version=b"\xc3("))
    assert reason_of(snapshot, "versions.driver") == "undecodable"


def test_platform_bytes_are_read_raw() -> None:
    raw = FakePlatform(chassis_serial="1820000000042", tray=200, host=255, ib_guid=b"\x00\xfe\xff")
    profile = replace(GB200, gpus=GB200.gpus[:1]).with_gpu(0, platform=raw)
    snapshot = snapshot_of(profile)
    assert (snapshot.chassis_serial, snapshot.tray) == ("1820000000042", 200)


def test_a_chassis_serial_that_is_no_text_is_kept_as_hex() -> None:
    raw = FakePlatform(chassis_serial=b"\x80\x01A", tray=3)
    snapshot = snapshot_of(replace(GB200, gpus=GB200.gpus[:1]).with_gpu(0, platform=raw))
    assert (snapshot.chassis_serial, snapshot.tray) == (None, 3)
    assert reason_of(snapshot, "chassis_serial") == "undecodable"
    assert detail_of(snapshot, "chassis_serial") == "bytes 800141"


def test_a_refused_module_id_is_no_number() -> None:
    snapshot = snapshot_of(H100.with_gpu(5, returns={"nvmlDeviceGetModuleId": 4}))
    assert snapshot.wiring.gpus[5].module_id is None
    assert reason_of(snapshot, "wiring.gpus[5].module_id") == "no_permission"


def test_module_ids_do_not_go_through_the_binding_s_shared_object() -> None:
    (shared,) = pynvml.nvmlDeviceGetModuleId.__defaults__ or (ctypes.c_uint(),)
    before = shared.value
    ids = [gpu.module_id for gpu in snapshot_of(H100).wiring.gpus]
    assert ids == [2, 4, 3, 1, 7, 5, 8, 6]
    assert shared.value == before


def test_module_ids_are_read_with_a_binding_that_wants_a_pointer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def older_form(handle: object, module_id: object) -> int:
        function = pynvml._nvmlGetFunctionPointer("nvmlDeviceGetModuleId")
        return int(function(handle, module_id))

    monkeypatch.setattr(pynvml, "nvmlDeviceGetModuleId", older_form)
    faulty = H100.with_gpu(0, returns={"nvmlDeviceGetModuleId": 3})
    ids = [gpu.module_id for gpu in snapshot_of(faulty).wiring.gpus]
    assert ids == [None, 4, 3, 1, 7, 5, 8, 6]


@pytest.mark.parametrize("taken", [{0x02000024}, {0x03000028}, {0x02000024, 0x03000028}])
def test_the_fabric_is_read_by_the_newest_struct_the_driver_takes(taken: set[int]) -> None:
    profile = replace(GB200, fabric_versions=frozenset(taken))
    profile = profile.lacking("nvmlDeviceGetGpuFabricInfo")
    fabric = snapshot_of(profile).gpus[0].fabric
    assert fabric is not None
    assert fabric.domain == "5f1c2d3e-0000-4111-8222-333344445555.32766"


@pytest.mark.parametrize("lacks", [(), ("nvmlDeviceGetGpuFabricInfoV",)])
def test_the_fabric_steps_down_to_the_form_without_a_version(lacks: tuple[str, ...]) -> None:
    profile = replace(GB200, fabric_versions=frozenset()).lacking(*lacks)
    fabric = snapshot_of(profile).gpus[0].fabric
    assert fabric is not None
    assert fabric.domain == "5f1c2d3e-0000-4111-8222-333344445555.32766"


def test_a_driver_that_takes_no_struct_is_too_old() -> None:
    profile = replace(GB200, fabric_versions=frozenset()).lacking("nvmlDeviceGetGpuFabricInfo")
    assert reason_of(snapshot_of(profile), "gpus[*].fabric") == "driver_too_old"


def test_the_fabric_does_not_need_the_structs_of_a_new_binding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("c_nvmlGpuFabricInfo_v2_t", "c_nvmlGpuFabricInfo_v3_t", "c_nvmlPlatformInfo_v2_t"):
        monkeypatch.delattr(pynvml, name, raising=False)
    snapshot = snapshot_of(GB200)
    assert snapshot.tray == 10
    assert all(gpu.fabric and gpu.fabric.domain for gpu in snapshot.gpus)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("nvmlDeviceGetGpuFabricInfoV", "gpus[*].fabric"),
        ("nvmlDeviceGetPlatformInfo", "tray"),
        ("nvmlDeviceGetModuleId", "wiring.gpus[*].module_id"),
    ],
)
def test_a_function_that_an_old_binding_lacks_is_missing(
    name: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(pynvml, name)
    monkeypatch.delattr(pynvml, "nvmlDeviceGetGpuFabricInfo")
    snapshot = snapshot_of(GB200)
    assert reason_of(snapshot, path) == "function_missing"
    assert "not in this nvidia-ml-py" in detail_of(snapshot, path)


def test_a_binding_without_the_mismatch_error_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(pynvml, "NVMLLibraryMismatchError", raising=False)
    monkeypatch.delattr(pynvml, "nvmlDeviceGetComputeRunningProcesses")
    assert snapshot_of(V100).gpus[0].serial == "0320000000000"


def test_memory_steps_down_to_its_first_form() -> None:
    profile = H100.lacking("nvmlDeviceGetMemoryInfo_v2")
    assert {gpu.memory_bytes for gpu in snapshot_of(profile).wiring.gpus} == {85_520_809_984}


def test_the_cpus_step_down_to_the_form_without_a_scope() -> None:
    profile = H100.lacking("nvmlDeviceGetCpuAffinityWithinScope")
    assert snapshot_of(profile).wiring.numa_nodes[1].cpu_affinity == "56-111,168-223"


def answer_of_field(
    monkeypatch: pytest.MonkeyPatch, *, kind: int, code: int = 0, **member: float
) -> dict[str, Any]:
    """What is read of the binding's own struct, filled by a library."""

    def library(handle: object, count: ctypes.c_int32, values: Any) -> int:
        field = ctypes.cast(values, ctypes.POINTER(pynvml.c_nvmlFieldValue_t))[0]
        assert (count.value, field.fieldId, field.scopeId) == (1, 165, 7)
        field.valueType, field.nvmlReturn = kind, code
        for name, number in member.items():
            setattr(field.value, name, number)
        return 0

    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer", lambda name: library)
    return binding.field_values(object(), [(165, 7)])[165, 7]


@pytest.mark.parametrize("kind", [7, 200])
def test_a_field_of_an_unknown_value_type_is_undecodable(
    kind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = answer_of_field(monkeypatch, kind=kind)
    assert answer == {"odd": f"value type {kind}"}


@pytest.mark.parametrize(
    ("kind", "member", "number"),
    [
        (0, "dVal", 18.0),
        (1, "uiVal", 18),
        (2, "ulVal", 2**40),
        (3, "ullVal", 2**63),
        (4, "sllVal", -18),
        (5, "siVal", -18),
        (6, "usVal", 18),
    ],
)
def test_a_field_is_read_by_its_value_type(
    kind: int, member: str, number: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    members: dict[str, Any] = {member: number}
    answer = answer_of_field(monkeypatch, kind=kind, **members)
    assert answer == {"value": number}


def test_a_field_s_own_return_code_counts_and_not_its_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert answer_of_field(monkeypatch, kind=3, code=3, ullVal=7) == {"code": 3}


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_field_without_a_finite_number_is_undecodable(
    number: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert answer_of_field(monkeypatch, kind=0, dVal=number) == {"odd": "value type 0"}


def test_fields_stand_as_far_apart_as_the_binding_has_them() -> None:
    with installed(H100):
        pynvml.nvmlInit()
        handle, fields = pynvml.nvmlDeviceGetHandleByIndex(0), [(91, 0), (164, 0), (165, 17)]
        theirs = pynvml.nvmlDeviceGetFieldValues(handle, fields)
        ours = binding.field_values(handle, fields)
        pynvml.nvmlShutdown()
    assert [ours[field]["value"] for field in fields] == [t.value.uiVal for t in theirs]


def calls_with(**answer: Any) -> Calls:
    return Calls({"nvmlDeviceGetX(0)": Answer(**answer)})


@pytest.mark.parametrize("value", [None, "8", 8.0, True, [8], {"n": 8}])
def test_a_number_that_is_none_is_undecodable(value: object) -> None:
    answer = calls_with(value=value).number("nvmlDeviceGetX", 0)
    assert isinstance(answer, Missing)
    assert answer.reason == "undecodable"


@pytest.mark.parametrize("value", [None, 8, ["a"], "x" * 2000])
def test_a_text_that_is_none_is_undecodable(value: object) -> None:
    answer = calls_with(value=value).text("nvmlDeviceGetX", 0)
    assert isinstance(answer, Missing)
    assert answer.reason == "undecodable"


PLAIN = st.none() | st.integers() | st.text() | st.floats()
ROWS = st.lists(PLAIN, max_size=4) | st.dictionaries(st.text(), PLAIN, max_size=4)
ANYTHING = PLAIN | ROWS | st.lists(ROWS, max_size=4) | st.dictionaries(st.text(), ROWS, max_size=4)


@settings(deadline=None)
@given(ANYTHING)
def test_no_answer_of_whatever_form_is_an_error(value: object) -> None:
    names = ("PciInfo", "MemoryInfo", "GpuFabricInfoV", "PlatformInfo", "UtilizationRates")
    more = ("ComputeRunningProcesses", "ProcessUtilization", "RemappedRows", "EccMode", "MigMode")
    keys = [f"nvmlDeviceGet{name}(0)" for name in names + more]
    answers = {key: Answer(value=value) for key in keys}
    counted = {"nvmlDeviceGetCount()": 1, "nvmlDeviceGetHandleByIndex(0)": True}
    answers |= {key: Answer(value=number) for key, number in counted.items()}
    assert_honest(snapshot_from_calls(Calls(answers), host=HOST, collected_at=NOON))
