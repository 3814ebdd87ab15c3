"""Redaction: nothing that identifies is left, and all else still says the same."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from fleet.errors import StoreError
from fleet.fields import Absence, AbsenceReason, GpuUuid, HostName, SwitchId
from fleet.merge import snapshots_of
from fleet.model import (
    Allocation,
    Cable,
    CableEnd,
    Conflict,
    FabricState,
    FleetMap,
    Footprint,
    GpuIdentity,
    NicIdentity,
    NodeSnapshot,
    NvlinkFabric,
    Switch,
)
from fleet.probe.files import files_below
from fleet.reading import (
    Answer,
    CollectedAt,
    CommandOutput,
    NodeReading,
    Stop,
    StopReason,
    reading_from_bytes,
)
from fleet.redact import key_path, redacted, redacted_together, redaction_key
from fleet.redact.models import PLACES
from fleet.redact.pseudonyms import Kind, Pseudonyms
from fleet.shapes import node_wirings, wiring_digest
from fleet.sources import nvidia_smi
from fleet.sources.reading import snapshot_from_reading
from fleet.state import GpuProcess, GpuState, MigDevice, UnlistedGpu, UnlistedWhy
from fleet.store import load_fleet
from tests.factories import address, fleet_of, make_fleet, make_snapshot, make_wiring
from tests.fakes.nvml import NOON, asked_here, installed
from tests.fakes.nvml_profiles import profile_named
from tests.fakes.sysfs_trees import hgx_h100

KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))
NAMES = Pseudonyms(KEY)


@dataclass(frozen=True)
class Identities:
    """What must not be seen: texts of each kind, and addresses as bare hexadecimal digits."""

    host: str
    uuid: str
    mig: str
    cluster: str
    serial: str
    chassis: str
    guid: str
    mac: str
    pdi: str
    user: str
    process: str
    switch: str

    def texts(self) -> Iterator[str]:
        """All spellings in which one of them could be left."""
        yield from (self.host, self.user, self.process, self.switch)
        for serial in (self.serial, self.chassis):
            yield from (serial, serial.encode().hex())
        for digits in (self.uuid, self.mig, self.cluster, self.guid, self.mac, self.pdi):
            yield from (digits, dashed(digits), by_four(digits), by_two(digits))
        yield str(int(self.pdi, 16))


def dashed(digits: str) -> str:
    """Digits as a UUID is written."""
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def by_four(digits: str) -> str:
    """Digits as the kernel writes a GUID."""
    return ":".join(digits[i : i + 4] for i in range(0, len(digits), 4))


def by_two(digits: str) -> str:
    """Digits as a MAC address is written."""
    return ":".join(digits[i : i + 2] for i in range(0, len(digits), 2))


def some_identities(draw: Random) -> Identities:
    """Identities that no other text looks like by chance."""

    def hex_of(length: int) -> str:
        return "da" + "".join(draw.choices("0123456789abcdef", k=length - 2))

    def word() -> str:
        return "q" + "".join(draw.choices("jqvwxz", k=draw.randint(6, 12)))

    def serial() -> str:
        return "7" + "".join(draw.choices("0123456789", k=12))

    return Identities(
        host=f"{word()}-{draw.randint(1, 99)}",
        uuid=hex_of(32),
        mig=hex_of(32),
        cluster=hex_of(32),
        serial=serial(),
        chassis=serial(),
        guid=hex_of(16),
        mac=hex_of(12),
        pdi=hex_of(16),
        user=f"{word()}u",
        process=f"/opt/{word()}/run.py",
        switch=f"MF0;{word()}:MQM9700/U1",
    )


IDENTITIES = st.integers(0, 2**64).map(lambda seed: some_identities(Random(seed)))
SOME = Identities(
    host="qzx-7",
    uuid="da0c4b6f11112222333344445555666a",
    mig="da0c4b6f99992222333344445555666b",
    cluster="daaa5c1f2d3e4111822233334444555c",
    serial="7650422001234",
    chassis="7820000000042",
    guid="da9d730300156ff6",
    mac="da3fd2123456",
    pdi="da1e7660f021a0d4",
    user="qvwu",
    process="/opt/qvw/run.py",
    switch="MF0;QVW-04:MQM9700/U1",
)


def make_reading(who: Identities = SOME, **special: Any) -> NodeReading:
    """A reading with every identity wherever a probe or a driver puts it."""
    fabric = f"{who.cluster}000000000700000003000000aa010000"
    platform = f"{who.guid}{'0' * 16}{who.chassis.encode().hex().ljust(32, '0')}0f0a010102"
    plain: dict[str, Any] = {
        "kind": "node_reading",
        "schema_version": 1,
        "host": HostName(who.host),
        "answers": {
            "nvmlDeviceGetName(0)": Answer(value="NVIDIA H100 80GB HBM3"),
            "nvmlDeviceGetUUID(0)": Answer(value=f"GPU-{dashed(who.uuid)}"),
            "nvmlDeviceGetUUID(0.1)": Answer(value=f"MIG-{dashed(who.mig)}"),
            "nvmlDeviceGetSerial(0)": Answer(value=who.serial),
            "nvmlDeviceGetSerial(1)": Answer(hex=f"{who.serial.encode().hex()}ff"),
            "nvmlDeviceGetPdi(0)": Answer(value=int(who.pdi, 16)),
            "nvmlDeviceGetGpuFabricInfoV(0)": Answer(value={"version": 50331688, "hex": fabric}),
            "nvmlDeviceGetPlatformInfo(0)": Answer(value={"version": 33554476, "hex": platform}),
            "nvmlGetExcludedDeviceInfoByIndex(0)": Answer(
                value={"bus_id": "00000000:1B:00.0", "uuid": f"GPU-{dashed(who.uuid)}"}
            ),
            "process(4242)": Answer(value={"name": who.process, "user": who.user}),
            "nvmlDeviceGetCount()": Answer(odd=f"ValueError: {who.serial} of {who.host}"),
        },
        "files": {
            "/sys/class/infiniband/mlx5_0/node_guid": by_four(who.guid) + "\n",
            "/sys/class/infiniband/mlx5_0/node_desc": f"{who.host} mlx5_0\n",
            "/sys/class/infiniband/mlx5_0/ports/1/gids/0": f"fe80:{'0000:' * 3}{by_four(who.guid)}",
            "/sys/class/net/ib0/address": f"00:00:10:29:fe:80{':00' * 6}:{by_two(who.guid)}\n",
            f"/sys/class/net/enx{who.mac}/address": by_two(who.mac) + "\n",
            "/sys/class/net/eno1/ifalias": f"to {who.switch} of {who.host}.q.example\n",
            "/sys/class/dmi/id/product_serial": who.chassis + "\n",
            "/proc/driver/nvidia/gpus/0000:1b:00.0/information": f"UUID: GPU-{dashed(who.uuid)}",
        },
        "links": {f"/sys/class/net/enx{who.mac}": f"../../0000:1b:00.0/net/enx{who.mac}"},
        "unreadable": {f"/sys/class/net/enx{who.mac}/speed": "EINVAL"},
        "outputs": {
            "nvidia-smi -q -x": CommandOutput(text=xml_of(who), exit_code=0),
            "nvidia-smi -q": CommandOutput(
                text=f"    Serial Number : {who.serial}\n    GPU PDI : 0x{who.pdi}\n"
                f"            Name : {who.process}\n"
            ),
        },
        "stops": (
            Stop(
                chapter="network",
                at=f"/sys/class/net/enx{who.mac}/speed",
                reason=StopReason.TIMED_OUT,
                waited_s=0.5,
                detail=f"{who.host} waits for {who.switch}, GPU-{dashed(who.uuid)}",
            ),
        ),
    }
    # A switch is known by its field alone: the reading is redacted together with a map.
    return NodeReading(**plain | special)


def xml_of(who: Identities = SOME) -> str:
    """nvidia-smi -q -x of one GPU."""
    return f"""<?xml version="1.0" ?>
<!-- saved on {who.host} -->
<nvidia_smi_log>
  <driver_version>580.65.06</driver_version>
  <cuda_version>13.0</cuda_version>
  <attached_gpus>1</attached_gpus>
  <gpu id="00000000:1B:00.0">
    <product_name>NVIDIA GB200</product_name>
    <serial>{who.serial}</serial>
    <uuid>GPU-{dashed(who.uuid)}</uuid>
    <pdi>0x{who.pdi}</pdi>
    <vbios_version>97.00.B9.00.10</vbios_version>
    <platformInfo>
      <chassis_serial_number>{who.chassis}</chassis_serial_number>
      <tray_index>10</tray_index>
      <gpu_fabric_guid>0x{who.guid}</gpu_fabric_guid>
    </platformInfo>
    <fb_memory_usage><total>189471 MiB</total></fb_memory_usage>
    <fabric>
      <state>Completed</state><status>Success</status>
      <cliqueId>7</cliqueId><clusterUuid>{dashed(who.cluster)}</clusterUuid>
    </fabric>
    <processes>
      <process_info><pid>4242</pid><type>C</type><process_name>{who.process}</process_name>
      </process_info>
    </processes>
  </gpu>
</nvidia_smi_log>
"""


def snapshot_of(who: Identities = SOME, **special: Any) -> NodeSnapshot:
    """A snapshot with every identity that the model has a field for, and some in free text."""
    plain: dict[str, Any] = {
        "gpus": (
            GpuIdentity(
                slot=0,
                uuid=GpuUuid(f"GPU-{dashed(who.uuid)}"),
                serial=who.serial,
                fabric=NvlinkFabric(
                    state=FabricState.DOMAIN, cluster_uuid=dashed(who.cluster), clique=7
                ),
            ),
        ),
        "nics": (NicIdentity(slot=0, guid=who.guid), NicIdentity(slot=1)),
        "chassis_serial": who.chassis,
        "footprint": Footprint(rack=f"{who.host}-rack", owner=who.user, position=3),
        "allocations": (
            Allocation(holder=f"pid 4242 {who.process}", slots=(0,)),
            Allocation(holder=who.user, slots=(0,)),
        ),
        "states": (
            GpuState(
                slot=0,
                mig_devices=(MigDevice(index=1, uuid=GpuUuid(f"MIG-{dashed(who.mig)}")),),
            ),
        ),
        "processes": (GpuProcess(slot=0, pid=4242, name=who.process, user=who.user),),
        "unlisted_gpus": (
            UnlistedGpu(
                pci_address=address(0x99),
                why=UnlistedWhy.EXCLUDED,
                uuid=GpuUuid(f"GPU-{dashed(who.uuid)}"),
            ),
        ),
        "absences": (
            Absence(
                path="nics[1].guid",
                reason=AbsenceReason.UNDECODABLE,
                detail=f"SN{who.pdi}/4 on {who.host}, bytes {who.serial.encode().hex()}",
            ),
            Absence(
                path="versions",
                reason=AbsenceReason.FAILED,
                detail=f"ssh {who.user}@{who.host}.q.example: {by_two(who.mac)}, {who.chassis}",
            ),
        ),
    }
    wiring = make_wiring(gpus=1, nics=2)
    return make_snapshot(who.host, wiring, **plain | special)


def fleet_with(who: Identities = SOME) -> FleetMap:
    """A map of that node, its switch and a conflict whose other value stands nowhere else."""
    cable = Cable(
        a=CableEnd(device=who.host, nic=0, port=1),
        b=CableEnd(device=who.switch, port=1),
        bytes_per_s=50e9,
    )
    switch = Switch(
        id=SwitchId(who.switch),
        guid=f"0x{who.guid}",
        nvlink_domain=f"{dashed(who.cluster)}.7",
        footprint=Footprint(hall=f"{who.switch} hall"),
    )
    fleet = make_fleet(snapshot_of(who), switches=(switch,), cables=(cable,))
    conflict = Conflict(
        path=f"nodes[{who.host}].gpus[0].serial",
        said=(("nvml", who.serial), ("nvidia_smi", who.pdi)),
        taken=who.serial,
    )
    other = Conflict(
        path=f"switches[{who.switch}].tier",
        said=(("one map", "0"), (f"nodes[{who.host}]", f"1 on {who.switch}")),
    )
    return fleet.model_copy(update={"conflicts": (conflict, other)})


def left(document: BaseModel, who: Identities) -> list[str]:
    """Spellings of identities that a document's JSON still has."""
    text = document.model_dump_json().lower()
    return [spelling for spelling in who.texts() if spelling.lower() in text]


@settings(max_examples=60, deadline=None)
@given(who=IDENTITIES)
def test_nothing_that_identifies_is_left_in_any_document(who: Identities) -> None:
    snapshot, fleet = snapshot_of(who), fleet_with(who)
    reading = make_reading(who)
    assert len(left(reading, who)) > 15
    assert left(redacted(snapshot, KEY), who) == []
    assert left(redacted(fleet, KEY), who) == []
    together: tuple[NodeReading | FleetMap, ...] = (reading, fleet)
    ours, _ = redacted_together(together, KEY)
    assert left(ours, who) == []


@settings(max_examples=30, deadline=None)
@given(who=IDENTITIES)
def test_redaction_is_the_same_again_with_one_key_and_differs_with_another(who: Identities) -> None:
    documents: tuple[NodeReading | NodeSnapshot | FleetMap, ...] = (
        make_reading(who),
        snapshot_of(who),
        fleet_with(who),
    )
    for document in documents:
        once = redacted(document, KEY)
        assert once == redacted(document, KEY)
        other = redacted(document, OTHER_KEY)
        assert identities_in(once).isdisjoint(identities_in(other))


def identities_in(document: BaseModel) -> set[str]:
    """Every pseudonym of a document that chance does not make twice."""
    text = document.model_dump_json()
    return set(
        re.findall(r"(?:host|user|process|switch|rack|owner|hall)-[0-9a-f]{12}", text)
    ) | set(re.findall(r"[GM][PI][UG]-[0-9a-f-]{36}", text))


def test_a_redacted_reading_is_a_reading_and_differs_only_where_something_identifies() -> None:
    reading = make_reading()
    new = redacted(reading, KEY)
    assert reading_from_bytes(new.model_dump_json().encode(), where="redacted") == new
    assert list(new.answers) == list(reading.answers)
    assert new.answers["nvmlDeviceGetName(0)"] == reading.answers["nvmlDeviceGetName(0)"]
    excluded = new.answers["nvmlGetExcludedDeviceInfoByIndex(0)"].value
    assert excluded["bus_id"] == "00000000:1B:00.0"
    fabric = new.answers["nvmlDeviceGetGpuFabricInfoV(0)"].value
    assert fabric["version"] == 50331688
    assert fabric["hex"][32:] == "000000000700000003000000aa010000"
    platform = new.answers["nvmlDeviceGetPlatformInfo(0)"].value["hex"]
    assert platform[16:32] == "0" * 16, "the second half of the GUID stays empty"
    assert platform[64:] == "0f0a010102", "slot, tray, host, peer, module"
    assert new.files["/sys/class/net/ib0/address"].startswith("00:00:10:29:fe:80:00:00")
    assert new.files["/sys/class/infiniband/mlx5_0/node_desc"] == f"{new.host} mlx5_0\n"
    assert new.stops[0].waited_s == 0.5
    assert new.answers["nvmlDeviceGetSerial(1)"].hex is not None
    assert new.answers["nvmlDeviceGetSerial(1)"].hex.endswith("ff"), "it still does not decode"


def test_one_identity_has_one_pseudonym_in_answers_files_and_outputs() -> None:
    new = redacted(make_reading(), KEY)
    answers = {key: answer.value for key, answer in new.answers.items()}
    xml = new.outputs["nvidia-smi -q -x"].text
    uuid, serial = answers["nvmlDeviceGetUUID(0)"], answers["nvmlDeviceGetSerial(0)"]
    assert f"<uuid>{uuid}</uuid>" in xml
    assert f"<serial>{serial}</serial>" in xml
    assert answers["nvmlGetExcludedDeviceInfoByIndex(0)"]["uuid"] == uuid
    assert uuid in new.files["/proc/driver/nvidia/gpus/0000:1b:00.0/information"]
    assert f"<pdi>0x{answers['nvmlDeviceGetPdi(0)']:016x}</pdi>" in xml
    cluster = answers["nvmlDeviceGetGpuFabricInfoV(0)"]["hex"][:32]
    assert f"<clusterUuid>{dashed(cluster)}</clusterUuid>" in xml
    platform = answers["nvmlDeviceGetPlatformInfo(0)"]["hex"]
    chassis = bytes.fromhex(platform[32:64]).rstrip(b"\0").decode()
    assert f"<chassis_serial_number>{chassis}</chassis_serial_number>" in xml
    assert chassis == new.files["/sys/class/dmi/id/product_serial"].strip()
    guid = platform[:16]
    assert f"<gpu_fabric_guid>0x{guid}</gpu_fabric_guid>" in xml
    assert new.files["/sys/class/infiniband/mlx5_0/node_guid"] == by_four(guid) + "\n"
    assert new.files["/sys/class/infiniband/mlx5_0/ports/1/gids/0"].endswith(by_four(guid))
    assert new.files["/sys/class/net/ib0/address"].endswith(by_two(guid) + "\n")
    assert f"saved on {new.host}" in xml
    assert answers["process(4242)"]["name"] in xml
    path = next(path for path in new.files if "/enx" in path)
    assert new.files[path].strip().replace(":", "") in path
    assert path.removesuffix("/address") in new.links


def test_documents_redacted_apart_still_join() -> None:
    reading, fleet = redacted(make_reading(), KEY), redacted(fleet_with(), KEY)
    (node,) = fleet.nodes
    assert node.host == reading.host == fleet.cables[0].a.device
    assert node.gpus[0].uuid == reading.answers["nvmlDeviceGetUUID(0)"].value
    assert node.gpus[0].serial == reading.answers["nvmlDeviceGetSerial(0)"].value
    assert node.nics[0].guid == reading.answers["nvmlDeviceGetPlatformInfo(0)"].value["hex"][:16]
    fabric = node.gpus[0].fabric
    assert fabric is not None
    assert fabric.domain == fleet.switches[0].nvlink_domain
    raw = reading.answers["nvmlDeviceGetGpuFabricInfoV(0)"].value["hex"]
    assert fabric.cluster_uuid == dashed(raw[:32])
    assert fleet.cables[0].b.device == fleet.switches[0].id
    assert node.processes is not None
    assert node.processes[0].name == reading.answers["process(4242)"].value["name"]
    assert node.processes[0].user == reading.answers["process(4242)"].value["user"]


@pytest.mark.parametrize(
    ("kind", "text", "form"),
    [
        (
            Kind.UUID,
            "GPU-473d8d0f-d462-185c-6b36-6fc23e23e571",
            r"GPU-(\w{4}){2}-(\w{4}-){3}\w{12}",
        ),
        (Kind.UUID, "MIG-473d8d0f-d462-185c-6b36-6fc23e23e571", r"MIG-[0-9a-f-]{36}"),
        (
            Kind.UUID,
            "MIG-GPU-473d8d0f-d462-185c-6b36-6fc23e23e571/1/0",
            r"MIG-GPU-[0-9a-f-]{36}/1/0",
        ),
        (Kind.UUID, "473d8d0fd462185c6b366fc23e23e571", r"[0-9a-f]{32}"),
        (Kind.UUID, "GPU-473D8D0F-D462-185C-6B36-6FC23E23E571", r"GPU-[0-9A-F-]{36}"),
        (Kind.UUID, "GPU-node1-0", r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
        (Kind.GUID, "da9d730300156ff6", r"[0-9a-f]{16}"),
        (Kind.GUID, "1234567890123456", r"[0-9a-f]{16}"),
        (Kind.GUID, "0xda9d730300156ff6", r"0x[0-9a-f]{16}"),
        (Kind.GUID, "da9d:7303:0015:6ff6", r"[0-9a-f]{4}(:[0-9a-f]{4}){3}"),
        (Kind.HEX, "b8:3f:d2:12:34:56", r"[0-9a-f][26ae](:[0-9a-f]{2}){5}"),
        (Kind.HEX, "B8-3F-D2-12-34-56", r"[0-9A-F][26AE](-[0-9A-F]{2}){5}"),
        (Kind.HEX, "fe80:0000:0000:0000:ba3f:d2ff:fe12:3456", r"fe80:(0000:){3}[0-9a-f:]{19}"),
        (Kind.HEX, "0000:0000:0000:0000:0000:ffff:0a0b:0c0d", r"(0000:){5}ffff:[0-9a-f:]{9}"),
        (Kind.SERIAL, "1320222043305", r"[0-9]{13}"),
        (Kind.SERIAL, "MT2243X00ABC", r"[A-Z]{2}[0-9]{4}[A-Z][0-9]{2}[A-Z]{3}"),
        (Kind.SERIAL, "7", r"[1-9]"),
        (Kind.HOST, "gpu-node-17", r"host-[0-9a-f]{12}"),
        (Kind.HOST, "gpu-node-17.cluster.example", r"host-[0-9a-f]{12}\.domain-[0-9a-f]{12}"),
        (Kind.HOST, "10.11.12.13", r"ip-[0-9a-f]{12}"),
        (Kind.SWITCH, "leaf1", r"switch-[0-9a-f]{12}"),
        (Kind.SWITCH, "S-2c5eab0300b87b40", r"S-[0-9a-f]{16}"),
        (Kind.NVLINK_DOMAIN, "473d8d0f-d462-185c-6b36-6fc23e23e571.32766", r"[0-9a-f-]{36}\.32766"),
        (Kind.HOLDER, "pid 4242 python3", r"pid 4242 process-[0-9a-f]{12}"),
        (Kind.HOLDER, "alice", r"holder-[0-9a-f]{12}"),
        (Kind.USER, "アリス", r"user-[0-9a-f]{12}"),
    ],
)
def test_a_pseudonym_has_the_form_of_what_it_stands_for(kind: Kind, text: str, form: str) -> None:
    pseudonym = NAMES.of(kind, text)
    assert re.fullmatch(form, pseudonym)
    assert pseudonym != text or len(text) == 1


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Kind.UUID, "00000000-0000-0000-0000-000000000000"),
        (Kind.GUID, "0x0000000000000000"),
        (Kind.GUID, "0000:0000:0000:0000"),
        (Kind.SERIAL, "0000000000000"),
        (Kind.SERIAL, "[N/A]"),
        (Kind.SERIAL, "To Be Filled By O.E.M."),
        (Kind.HEX, "ff:ff:ff:ff:ff:ff"),
        (Kind.HEX, "fe80:0000:0000:0000:0000:0000:0000:0000"),
        (Kind.HOST, "localhost"),
        (Kind.USER, "root"),
        (Kind.HOLDER, "pid 4242"),
        (Kind.HOLDER, "a process without pid and name"),
    ],
)
def test_what_identifies_nothing_stays(kind: Kind, text: str) -> None:
    assert NAMES.of(kind, text) == text


def test_the_spelling_of_an_address_does_not_change_its_pseudonym() -> None:
    plain = NAMES.of(Kind.GUID, "da9d730300156ff6")
    assert NAMES.of(Kind.GUID, "0xDA9D730300156FF6").lower() == f"0x{plain}"
    assert NAMES.of(Kind.GUID, "da9d:7303:0015:6ff6").replace(":", "") == plain
    gid = NAMES.of(Kind.HEX, "fe80:0000:0000:0000:da9d:7303:0015:6ff6")
    assert gid.replace(":", "").endswith(plain)


def test_a_short_host_name_joins_its_full_name() -> None:
    short, full = (NAMES.of(Kind.HOST, name) for name in ("n1", "n1.cluster.example"))
    assert full.startswith(f"{short}.domain-")
    other = NAMES.of(Kind.HOST, "n2.cluster.example")
    assert other.partition(".")[2] == full.partition(".")[2]


def test_the_names_of_20_000_hosts_stay_distinct() -> None:
    names = {NAMES.of(Kind.HOST, f"gpu{i:05d}") for i in range(20_000)}
    assert len(names) == 20_000


def test_a_key_that_can_be_tried_out_is_refused() -> None:
    with pytest.raises(ValueError, match="a key of 4 bytes; expected 16 or more"):
        redacted(make_snapshot(), b"1234")


def test_the_redacted_xml_gives_the_same_node_but_for_its_names() -> None:
    new = redacted(make_reading(), KEY)
    before, after = (
        nvidia_smi.read(
            reading.outputs["nvidia-smi -q -x"].text.encode(), where="xml", host=reading.host
        )[0]
        for reading in (make_reading(), new)
    )
    assert after == redacted(before, KEY)
    assert after.wiring == before.wiring
    assert after.gpus[0].vbios == "97.00.B9.00.10"
    assert after.tray == 10


@pytest.mark.parametrize("machine", ["h100-8", "gb200-4", "l40s-2", "t4-1", "v100-2"])
def test_to_redact_and_to_understand_is_the_same_in_either_order(
    machine: str, tmp_path: Path
) -> None:
    hgx_h100(tmp_path)
    files, links, unreadable = files_below(str(tmp_path))
    with installed(profile_named(machine)):
        answers = asked_here().answers
    reading = make_reading(
        answers=answers | {"process(4242)": make_reading().answers["process(4242)"]},
        files=files,
        links=links,
        unreadable=unreadable,
        collected_at=CollectedAt(files=NOON, driver=NOON),
        outputs={},
        stops=(),
    )
    snapshot = snapshot_from_reading(reading)
    assert any(gpu.uuid for gpu in snapshot.gpus)
    assert any(nic.guid for nic in snapshot.nics)
    assert snapshot_from_reading(redacted(reading, KEY)) == redacted(snapshot, KEY)


@pytest.mark.parametrize("host", ["gpu", "node1", "processes", "NVIDIA", "sys", "gpu0", "PIX"])
def test_a_host_named_like_a_part_of_the_documents_breaks_none_of_them(host: str) -> None:
    matrix = "\tGPU0\tGPU1\tCPU Affinity\nGPU0\t X \tPIX\t0-63\nGPU1\tPIX\t X \t0-63\n"
    reading = make_reading(
        host=HostName(host),
        files={"/sys/devices/system/node/node1/cpulist": "0-63\n"},
        links={"/sys/class/net/eno1": "../../node/node1"},
        outputs={
            "nvidia-smi -q -x": CommandOutput(text=xml_of()),
            "nvidia-smi topo -m": CommandOutput(text=matrix),
        },
    )
    new = redacted(reading, KEY)
    assert new.host != host
    assert new.files == reading.files
    assert new.links == reading.links
    assert new.outputs["nvidia-smi topo -m"].text == matrix
    text = new.outputs["nvidia-smi -q -x"].text
    (snapshot,) = nvidia_smi.read(text.encode(), where="xml", host=new.host)
    assert snapshot.wiring.gpus[0].product_name == "NVIDIA GB200"


def test_a_conflicts_rejected_serial_is_replaced_too() -> None:
    new = redacted(fleet_with(), KEY)
    serial, tier = new.conflicts
    host = new.nodes[0].host
    assert serial.path == f"nodes[{host}].gpus[0].serial"
    assert serial.taken == serial.said[0][1] == new.nodes[0].gpus[0].serial
    assert serial.said[1] == ("nvidia_smi", NAMES.of(Kind.SERIAL, SOME.pdi))
    assert tier.path == f"switches[{new.switches[0].id}].tier"
    assert tier.said == (("one map", "0"), (f"nodes[{host}]", f"1 on {new.switches[0].id}"))


def test_ip_addresses_in_what_people_read_are_replaced_and_loopback_stays() -> None:
    told = "10.1.2.3 port 22, fe80::1 and 127.0.0.1 by 535.104.5.12"
    absence = Absence(path="versions", reason=AbsenceReason.FAILED, detail=told)
    detail = redacted(snapshot_of(absences=(absence,)), KEY).absences[0].detail
    assert detail is not None
    form = r"ip-[0-9a-f]{12} port 22, ip-[0-9a-f]{12} and 127\.0\.0\.1 by 535\.104\.5\.12"
    assert re.fullmatch(form, detail)


def test_a_detail_that_grows_beyond_its_bound_is_cut() -> None:
    detail = ("qzx-7 " * 200)[:1024]
    absence = Absence(path="versions", reason=AbsenceReason.FAILED, detail=detail)
    new = redacted(snapshot_of(absences=(absence,)), KEY).absences[0].detail
    assert new is not None
    assert len(new) == 1024
    assert "qzx" not in new


def test_names_known_from_one_document_are_found_in_the_others() -> None:
    absence = Absence(
        path="versions", reason=AbsenceReason.FAILED, detail="as on qother-1 and qother-12"
    )
    first, second = snapshot_of(absences=(absence,)), make_snapshot("qother-1")
    new = redacted_together((first, second), KEY)
    assert new[0].absences[0].detail == f"as on {new[1].host} and qother-12"


def test_a_large_output_without_any_break_is_read_in_one_pass() -> None:
    """Texts that would make a careless pattern try every start: this test would not end."""
    texts = ["a" * 200_000, " " * 200_000, "<!--" * 50_000, "ab:" * 50_000, "<a " * 50_000]
    outputs = {f"nvidia-smi {i}": CommandOutput(text=text) for i, text in enumerate(texts)}
    outputs["xml"] = CommandOutput(text="<nvidia_smi_log>" + "<!--" * 50_000)
    assert set(redacted(make_reading(outputs=outputs), KEY).outputs) == set(outputs)


@pytest.mark.parametrize("spec", ["model:gb200-nvl72 rack:1", "model:dgx-h100 node:5"])
def test_a_maps_wiring_keeps_its_digest_and_its_counts(spec: str) -> None:
    fleet = fleet_of(spec)
    new = redacted(fleet, KEY)
    assert new.shapes == fleet.shapes
    assert [wiring for _, wiring in node_wirings(new)] == [w for _, w in node_wirings(fleet)]
    assert new.gpu_count == fleet.gpu_count
    assert [cable.bytes_per_s for cable in new.cables] == [c.bytes_per_s for c in fleet.cables]
    assert [node.tray for node in new.nodes] == [node.tray for node in fleet.nodes]
    assert len({node.host for node in new.nodes}) == len(fleet.nodes)
    racks = [node.footprint and node.footprint.rack for node in fleet.nodes]
    new_racks = [node.footprint and node.footprint.rack for node in new.nodes]
    assert len(set(new_racks)) == len(set(racks))


def test_every_capture_of_the_samples_keeps_its_wiring(root: Path) -> None:
    paths = sorted((root / "samples" / "fleets").glob("*.json*"))
    assert paths
    for path in paths:
        for snapshot in list(snapshots_of(load_fleet(path)))[:2]:
            new = redacted(snapshot, KEY)
            assert wiring_digest(new.wiring) == wiring_digest(snapshot.wiring)
            assert new.host != snapshot.host


def test_real_outputs_of_nvidia_smi_read_the_same_without_their_names(artifacts: Path) -> None:
    paths = sorted((artifacts / "nvidia-smi-xml").glob("*.xml"))
    assert paths
    for path in paths:
        text = path.read_text()
        outputs = {"nvidia-smi -q -x": CommandOutput(text=text)}
        new = redacted(make_reading(outputs=outputs), KEY).outputs["nvidia-smi -q -x"].text
        for uuid in re.findall(r"<uuid>(.*?)</uuid>", text):
            assert uuid not in new
        before, after = (
            nvidia_smi.read(t.encode(), where=path.name, host=HostName("h"))[0] for t in (text, new)
        )
        assert after.wiring == before.wiring
        assert after.versions == before.versions
        assert [a.path for a in after.absences] == [a.path for a in before.absences]
        assert [gpu.vbios for gpu in after.gpus] == [gpu.vbios for gpu in before.gpus]


FIXED_FORM = {
    "path", "version", "state", "detail", "driver", "cuda", "nvml", "machine", "product_name",
    "compute_capability", "pci_address", "vendor_device", "cpu_affinity", "architecture", "vendor",
    "family", "model", "name", "a", "b", "shape", "spec", "part_number", "vbios", "source", "kind",
    "expected", "observed", "device", "said", "taken", "id", "logical_state", "physical_state",
    "firmware",
}  # fmt: skip
"""Texts of the models that identify nothing as a whole, or that the walk treats by itself."""


def models_below(model: type[BaseModel], seen: set[type[BaseModel]]) -> None:
    """A model and all that its fields hold."""
    if model in seen:
        return
    seen.add(model)
    for field in model.model_fields.values():
        for part in types_in(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel):
                models_below(part, seen)


def types_in(annotation: Any) -> Iterator[Any]:
    """A type and all that it is made of."""
    yield annotation
    for part in get_args(annotation):
        yield from types_in(part)


def test_every_text_of_the_models_was_looked_at() -> None:
    """A new field must be named here as harmless, or in PLACES as an identity."""
    models: set[type[BaseModel]] = set()
    for document in (NodeSnapshot, FleetMap):
        models_below(document, models)
    unknown = {
        f"{model.__name__}.{name}"
        for model in models
        for name, field in model.model_fields.items()
        if str in set(types_in(field.annotation)) | set(map(supertype, types_in(field.annotation)))
        and name not in PLACES.get(model, {})
        and name not in FIXED_FORM
    }
    assert unknown == set()
    assert {model for model in PLACES if model not in models} == set()


def supertype(part: Any) -> Any:
    """What a NewType is in truth."""
    return getattr(part, "__supertype__", None)


def test_the_key_is_made_once_and_is_the_users_alone(tmp_path: Path) -> None:
    environment = {"XDG_STATE_HOME": str(tmp_path / "state")}
    key = redaction_key(environment)
    path = tmp_path / "state" / "fleetmap" / "redaction.key"
    assert path.read_bytes() == key
    assert len(key) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert redaction_key(environment) == key
    assert [entry.name for entry in path.parent.iterdir()] == ["redaction.key"]


@pytest.mark.parametrize(
    ("environment", "path"),
    [
        ({"XDG_STATE_HOME": "/s", "HOME": "/h"}, "/s/fleetmap/redaction.key"),
        ({"HOME": "/h"}, "/h/.local/state/fleetmap/redaction.key"),
        ({"XDG_STATE_HOME": "s", "HOME": "/h"}, "/h/.local/state/fleetmap/redaction.key"),
    ],
)
def test_the_key_stands_where_the_xdg_standard_says(environment: dict[str, str], path: str) -> None:
    assert str(key_path(environment)) == path


def test_without_a_home_there_is_no_key() -> None:
    with pytest.raises(StoreError, match="set HOME or XDG_STATE_HOME"):
        key_path({"XDG_STATE_HOME": "relative"})


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_that_others_may_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    environment = {"XDG_STATE_HOME": str(tmp_path)}
    redaction_key(environment)
    path = key_path(environment)
    path.chmod(mode)
    with pytest.raises(StoreError, match=rf"mode {mode:04o}.*chmod 600 {re.escape(str(path))}"):
        redaction_key(environment)


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    environment = {"XDG_STATE_HOME": str(tmp_path)}
    path = key_path(environment)
    path.parent.mkdir()
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(StoreError, match="expected a file of 32 bytes"):
        redaction_key(environment)


def test_a_folder_where_no_key_can_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "fleetmap").write_text("a file")
    with pytest.raises(StoreError, match="cannot be used as the redaction key"):
        redaction_key({"XDG_STATE_HOME": str(tmp_path)})


def test_those_who_make_a_key_at_once_have_the_same(tmp_path: Path) -> None:
    environment = {"XDG_STATE_HOME": str(tmp_path)}
    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(lambda _: redaction_key(environment), range(16)))
    assert len(keys) == 1
