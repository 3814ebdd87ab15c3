"""Both fakes of NVML under the real binding: the same answers, and those of the machine."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pynvml
import pytest

from tests.fakes import nvml_calls
from tests.fakes.nvml_library import installed
from tests.fakes.nvml_machine import FakeExcluded, FakeProfile, Faults
from tests.fakes.nvml_profiles import NAMES, profile_from_text, profile_named, with_faults
from tests.fakes.nvml_stub import SONAME, NvmlStub
from tests.fakes.nvml_symbols import SYMBOLS

H100, L40S, A100 = (profile_named(name) for name in ("h100-8", "l40s-2", "a100-mig-2"))
GB200 = profile_named("gb200-4")
TWO_H100 = replace(H100, gpus=H100.gpus[:2])
EXCLUDED = FakeExcluded("00000000:61:00.0", "GPU-11110000-aaaa-4bbb-8ccc-0000000000ff")

ASK = """
import sys, pynvml
if sys.argv[1] == "nvmlInit":
    print("calling", flush=True)
pynvml.nvmlInit()
handle = pynvml.nvmlDeviceGetHandleByIndex(1)
print(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0)))
print("calling", flush=True)
print(getattr(pynvml, sys.argv[1])(handle), flush=True)
"""


def as_json(text: str | bytes) -> dict[str, Any]:
    answers: dict[str, Any] = json.loads(text)
    return answers


def answers_of_python(profile: FakeProfile) -> dict[str, Any]:
    with installed(profile):
        return as_json(json.dumps(nvml_calls.answers()))


def answers_of_c(stub: NvmlStub, profile: FakeProfile) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fakes.nvml_calls"],
        env=os.environ | stub.environment(profile),
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=True,
    )
    return as_json(done.stdout)


@pytest.mark.proof
@pytest.mark.parametrize("name", NAMES)
def test_both_fakes_answer_every_call_alike(name: str, nvml_stub: NvmlStub) -> None:
    profile = profile_named(name)
    assert answers_of_c(nvml_stub, profile) == answers_of_python(profile)


FAULTY: dict[str, FakeProfile] = {
    "lost": with_faults(TWO_H100, 1, lost=True),
    "no_permission": with_faults(TWO_H100, 0, no_permission=True),
    "lost_after_calls": with_faults(TWO_H100, 1, lost=True, after_calls=10),
    "returns": with_faults(TWO_H100, 1, returns={"nvmlDeviceGetSerial": 999}),
    "every_code": TWO_H100.with_gpu(0, every_code=10),
    "fields": TWO_H100.with_gpu(0, field_returns={91: 3, 165: 2}),
    "undecodable": with_faults(TWO_H100, 0, undecodable="nvmlDeviceGetSerial"),
    "undecodable_after_calls": with_faults(
        TWO_H100, 0, undecodable=["nvmlDeviceGetVbiosVersion"], after_calls=3
    ),
    "delay": with_faults(TWO_H100, 0, delay_s={"nvmlDeviceGetName": 0.001}),
    "undecodable_driver": with_faults(TWO_H100, undecodable="nvmlSystemGetDriverVersion"),
    "init": with_faults(TWO_H100, init_code=18),
    "shutdown": with_faults(TWO_H100, returns={"nvmlShutdown": 999}),
    "count": with_faults(TWO_H100, count_code=999),
    "lacks": with_faults(TWO_H100, lacks=["nvmlDeviceGetModuleId", "nvmlDeviceGetMemoryInfo_v2"]),
    "wrong_struct_version": with_faults(
        TWO_H100, wrong_struct_version=["nvmlDeviceGetGpuFabricInfoV", "nvmlDeviceGetMemoryInfo_v2"]
    ),
    "excluded": replace(TWO_H100, excluded=(EXCLUDED,)),
    "no_gpus": replace(TWO_H100, gpus=()),
    "odd_texts": TWO_H100.with_gpu(0, bus_id=b"\x01\xff\x03", serial="", name="x" * 95),
    "long_text": TWO_H100.with_gpu(0, serial="1" * 30),
    "no_links": TWO_H100.with_gpu(1, links=()),
}


@pytest.mark.proof
@pytest.mark.parametrize("fault", FAULTY)
def test_both_fakes_fail_alike(fault: str, nvml_stub: NvmlStub) -> None:
    answers = answers_of_c(nvml_stub, FAULTY[fault])
    assert answers == answers_of_python(FAULTY[fault])
    assert answers != answers_of_python(TWO_H100) or fault == "delay"


@contextmanager
def handles_of(profile: FakeProfile) -> Iterator[list[Any]]:
    with installed(profile):
        pynvml.nvmlInit()
        yield [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(len(profile.gpus))]
        pynvml.nvmlShutdown()


def test_structs_hold_what_the_machine_has() -> None:
    with handles_of(H100) as handles:
        busy, idle = handles[0], handles[2]
        pci = pynvml.nvmlDeviceGetPciInfo(idle)
        memory = pynvml.nvmlDeviceGetMemoryInfo(busy, pynvml.nvmlMemory_v2)
        first_form = pynvml.nvmlDeviceGetMemoryInfo(busy)
        (process,) = pynvml.nvmlDeviceGetComputeRunningProcesses(busy)
        (sample,) = pynvml.nvmlDeviceGetProcessUtilization(busy, 0)
        rates = pynvml.nvmlDeviceGetUtilizationRates(busy)
        rows = pynvml.nvmlDeviceGetRemappedRows(idle)
    assert (pci.busId, pci.busIdLegacy) == ("00000000:52:00.0", "0000:52:00.0")
    assert (pci.domain, pci.bus, pci.device) == (0, 0x52, 0)
    assert (pci.pciDeviceId, pci.pciSubSystemId) == (0x233010DE, 0x16C110DE)
    assert (memory.total, memory.used) == (85_520_809_984, 42_949_672_960)
    assert memory.free == memory.total - memory.used - memory.reserved
    assert first_form.used == memory.used + memory.reserved
    assert (process.pid, process.usedGpuMemory) == (4711, 42_949_672_960)
    assert (sample.pid, sample.smUtil, sample.memUtil) == (4711, 96, 40)
    assert (rates.gpu, rates.memory) == (97, 41)
    assert rows == (2, 1, 1, 0)


def test_fields_hold_what_the_machine_has() -> None:
    asked = [91, (90, 0), (146, 1), (161, 0), (163, 0), (165, 17), (165, 18), 230, 186]
    with handles_of(H100) as handles:
        fields = pynvml.nvmlDeviceGetFieldValues(handles[2], asked)
        kept = [(f.nvmlReturn, f.valueType, f.value.ullVal) for f in fields]
    assert kept == [
        (0, 1, 18),
        (0, 1, 26_562),
        (0, 1, 16),
        (0, 3, 12),
        (0, 3, 5_000_000_000),
        (0, 1, 1),
        (2, 0, 0),
        (0, 1, 1),
        (0, 1, 71_250),
    ]


def test_the_place_in_the_rack_and_the_fabric_are_raw_bytes() -> None:
    platform, fabric = pynvml.c_nvmlPlatformInfo_v2_t(), pynvml.c_nvmlGpuFabricInfo_v3_t()
    with handles_of(GB200) as handles:
        pynvml.nvmlDeviceGetPlatformInfo(handles[2], ctypes.byref(platform))
        pynvml.nvmlDeviceGetGpuFabricInfoV(handles[2], ctypes.byref(fabric))
    assert bytes(platform)[4:20] == b"\x00\x11\xff".ljust(16, b"\0")
    assert platform.chassisSerialNumber == "1820000000042"
    # Slot, tray, host, peer, module.
    assert list(bytes(platform)[36:41]) == [15, 10, 1, 0, 3]
    assert bytes(fabric.clusterUuid).hex() == "5f1c2d3e000041118222333344445555"
    assert (fabric.state, fabric.cliqueId) == (3, 32_766)
    assert (fabric.healthMask, fabric.healthSummary) == (0x1AA, 1)


def test_mig_devices_have_handles_of_their_own_and_gaps() -> None:
    with handles_of(A100) as (gpu, _):
        mig = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, 2)
        assert pynvml.nvmlDeviceGetUUID(mig) == "MIG-66660000-aaaa-4bbb-8ccc-00000000000b"
        assert pynvml.nvmlDeviceGetGpuInstanceId(mig) == 9
        assert pynvml.nvmlDeviceGetMemoryInfo(mig).total == 10_200_547_328
        with pytest.raises(pynvml.NVMLError_NotFound):
            pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, 1)
        with pytest.raises(pynvml.NVMLError_NotSupported):
            pynvml.nvmlDeviceGetUtilizationRates(gpu)


def test_a_fault_after_calls_leaves_those_calls_alone() -> None:
    with handles_of(with_faults(L40S, 1, lost=True, after_calls=3)) as (_, handle):
        assert pynvml.nvmlDeviceGetSerial(handle) == "1320000000001"
        assert pynvml.nvmlDeviceGetName(handle) == "NVIDIA L40S"
        with pytest.raises(pynvml.NVMLError_GpuIsLost):
            pynvml.nvmlDeviceGetName(handle)


def test_before_the_start_nothing_answers() -> None:
    with installed(L40S), pytest.raises(pynvml.NVMLError_Uninitialized):
        pynvml.nvmlDeviceGetCount()


def started(stub: NvmlStub, profile: FakeProfile, call: str) -> "subprocess.Popen[str]":
    """A process that says that it calls and then does so."""
    process = subprocess.Popen(
        [sys.executable, "-c", ASK, call],
        env=os.environ | stub.environment(profile),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while process.stdout.readline() != "calling\n":
        assert process.poll() is None
    return process


@pytest.mark.parametrize(
    ("call", "profile"),
    [
        ("nvmlDeviceGetSerial", with_faults(L40S, 1, hang="nvmlDeviceGetSerial")),
        ("nvmlInit", with_faults(L40S, hang="nvmlInitWithFlags")),
    ],
)
def test_a_hung_call_never_returns_and_outlives_a_polite_signal(
    call: str, profile: FakeProfile, nvml_stub: NvmlStub
) -> None:
    process = started(nvml_stub, profile, call)
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.3)
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.3)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_a_hang_is_of_one_gpu_only(nvml_stub: NvmlStub) -> None:
    process = started(
        nvml_stub, with_faults(L40S, 0, hang="nvmlDeviceGetSerial"), "nvmlDeviceGetSerial"
    )
    assert process.communicate()[0] == "1320000000001\n"


def test_a_delayed_call_answers_late(nvml_stub: NvmlStub) -> None:
    profile = with_faults(L40S, 1, delay_s={"nvmlDeviceGetSerial": 0.2})
    process = started(nvml_stub, profile, "nvmlDeviceGetSerial")
    assert process.communicate()[0] == "1320000000001\n"
    with handles_of(profile) as (_, handle):
        start = time.monotonic()
        assert pynvml.nvmlDeviceGetSerial(handle) == "1320000000001"
        assert time.monotonic() - start >= 0.2


def test_the_stub_has_the_symbols_of_the_fake_and_no_others(nvml_stub: NvmlStub) -> None:
    place = nvml_stub.environment(replace(L40S, lacks=frozenset()))["LD_LIBRARY_PATH"]
    library = ctypes.CDLL(f"{place.partition(':')[0]}/{SONAME}")
    assert {symbol for symbol in SYMBOLS if hasattr(library, symbol)} == SYMBOLS
    for other in ("nvmlInit_v2", "load", "running"):
        assert not hasattr(library, other)


def test_a_missing_symbol_is_not_in_the_library(nvml_stub: NvmlStub) -> None:
    place = nvml_stub.environment(L40S.lacking("nvmlDeviceGetModuleId"))["LD_LIBRARY_PATH"]
    library = ctypes.CDLL(f"{place.partition(':')[0]}/{SONAME}")
    assert not hasattr(library, "nvmlDeviceGetModuleId")
    assert hasattr(library, "nvmlDeviceGetName")


@pytest.mark.parametrize(
    ("broken", "error"), [("file", "DriverNotLoaded"), ("library", "LibraryNotFound")]
)
def test_a_machine_without_a_driver_says_so(broken: str, error: str, nvml_stub: NvmlStub) -> None:
    found = nvml_stub.environment(L40S) | {"FLEETMAP_FAKE_NVML": "/nowhere"}
    environment = found if broken == "file" else nvml_stub.no_library()
    done = subprocess.run(
        [sys.executable, "-c", "import pynvml; pynvml.nvmlInit()"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.stderr.splitlines()[-1].startswith(f"pynvml.NVMLError_{error}")


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("faults: {lots: true}", "lots"),
        ("faults: {hang: nvmlDeviceGetSerail}", "nvmlDeviceGetSerail"),
        ("faults: {undecodable: nvmlDeviceGetModuleId}", "nvmlDeviceGetModuleId"),
        ("faults: {delay_s: {nvmlDeviceGetNam: 1}}", "nvmlDeviceGetNam"),
        ("thermal: {temperature_c: 1}", "temperature_c"),
        ("nvlink: {link_count: 1, links: [{sped_mbps: 1}]}", "sped_mbps"),
        ("processes: [{pid: 3, memory: 1}]", "memory"),
    ],
)
def test_a_misspelt_key_of_a_device_is_refused(written: str, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        profile_from_text(f"{SMALL}\n    {written}")


SMALL = """
system: {driver_version: "1", nvml_version: "1", cuda_version: 1}
devices:
  - index: 0
    uuid: GPU-1
    name: none
    pci: {bus_id: "00000000:01:00.0"}"""


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("fault: {init_code: 9}", "fault"),
        ("faults: {init: 9}", "init"),
        ("lacks: [nvmlDeviceGetModuleID]", "nvmlDeviceGetModuleID"),
        ("faults: {wrong_struct_version: [nvmlDeviceGetName]}", "nvmlDeviceGetName"),
        ("topology: {pair: []}", "pair"),
    ],
)
def test_a_misspelt_key_of_a_machine_is_refused(written: str, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        profile_from_text(f"{SMALL}\n{written}")


def test_faults_are_data_of_a_profile() -> None:
    machine = profile_from_text(
        f"""{SMALL}
    faults: {{lost: true, after_calls: 7, hang: [nvmlDeviceGetName]}}
faults: {{init_code: 9, lacks: [nvmlDeviceGetName], undecodable: nvmlSystemGetDriverVersion}}
excluded: [{{bus_id: "00000000:61:00.0", uuid: {EXCLUDED.uuid}}}]"""
    )
    (gpu,) = machine.gpus
    assert (gpu.handle_code, gpu.every_code) == (15, 15)
    assert gpu.faults == Faults(after_calls=7, hangs=frozenset({"nvmlDeviceGetName"}))
    assert machine.init_code == 9
    assert machine.lacks == {"nvmlDeviceGetName"}
    assert machine.faults.undecodable == {"nvmlSystemGetDriverVersion"}
    assert machine.excluded == (EXCLUDED,)
