"""Texts of nvidia-smi, made by hand, and readers that check the contract."""

from fleet.fields import HostName
from fleet.model import NodeSnapshot
from fleet.sources import nvidia_smi, nvidia_smi_topo
from tests.contracts import assert_honest

HOST = HostName("node1")
MIB = 2**20
ZERO_UUID = "00000000-0000-0000-0000-000000000000"
CLUSTER = "6a1c3b52-9d0e-4f7a-8b21-0c5de4f39a77"


def gpu(inner: str = "", *, bus: str = "18", uuid: int = 1, processes: str = "") -> str:
    """A GPU element: what is in ``inner`` comes first and therefore counts."""
    return (
        f'<gpu id="00000000:{bus}:00.0">{inner}<product_name>NVIDIA H100</product_name>'
        f"<serial>990{uuid:010d}</serial><uuid>GPU-aaaaaaaa-0000-4000-8000-{uuid:012x}</uuid>"
        "<fb_memory_usage><total>81559 MiB</total></fb_memory_usage>"
        f"<fabric><state>N/A</state></fabric><processes>{processes}</processes></gpu>"
    )


def document(*gpus: str, driver: str = "550.90.07", attached: int | None = None) -> bytes:
    count = len(gpus) if attached is None else attached
    return (
        '<?xml version="1.0" ?>\n<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">\n'
        f"<nvidia_smi_log>\n<timestamp>Tue Oct  1 08:15:30 2024</timestamp>"
        f"<driver_version>{driver}</driver_version><cuda_version>12.4</cuda_version>"
        f"<attached_gpus>{count}</attached_gpus>{''.join(gpus)}</nvidia_smi_log>"
    ).encode()


def process(pid: str, kind: str, name: str) -> str:
    return (
        f"<process_info><pid>{pid}</pid><type>{kind}</type>"
        f"<process_name>{name}</process_name></process_info>"
    )


def fabric(state: str, status: str, cluster: str | None = None, clique: str = "0") -> str:
    more = f"<cliqueId>{clique}</cliqueId><clusterUuid>{cluster}</clusterUuid>" if cluster else ""
    return f"<fabric><state>{state}</state><status>{status}</status>{more}</fabric>"


def read_xml(content: bytes) -> NodeSnapshot:
    (snapshot,) = nvidia_smi.read(content, where="q.xml", host=HOST)
    assert_honest(snapshot)
    return snapshot


def reason_of(snapshot: NodeSnapshot, path: str) -> tuple[str, str | None]:
    found = [absence for absence in snapshot.absences if absence.path == path]
    assert len(found) == 1, f"{path}: {len(found)} absences"
    return found[0].reason.value, found[0].detail


def platform(serial: str, tray: str, module: str) -> str:
    return (
        f"<platformInfo><chassis_serial_number>{serial}</chassis_serial_number>"
        f"<tray_index>{tray}</tray_index><module_id>{module}</module_id></platformInfo>"
    )


def read_matrix(text: str | bytes) -> NodeSnapshot:
    content = text.encode() if isinstance(text, str) else text
    (snapshot,) = nvidia_smi_topo.read(content, where="topo.txt", host=HOST)
    assert_honest(snapshot)
    return snapshot


def links(snapshot: NodeSnapshot, slot: int) -> tuple[tuple[str, int], ...]:
    return tuple((str(port.end), port.count) for port in snapshot.wiring.gpus[slot].ports)


def levels(snapshot: NodeSnapshot) -> dict[str, str]:
    return {pair.key: pair.level.value for pair in snapshot.wiring.pcie_levels}


def said(snapshot: NodeSnapshot, path: str) -> list[tuple[str, str | None]]:
    return [(a.reason.value, a.detail) for a in snapshot.absences if a.path == path]


def mesh(gpus: int, cell: str, *, affinity: str = "0-31\t0\t\tN/A") -> list[list[str]]:
    """A matrix as rows of fields, header first; each test changes what it is about."""
    names = [f"GPU{i}" for i in range(gpus)]
    header = ["", *names, "CPU Affinity", "NUMA Affinity", "GPU NUMA ID"]
    cells = [[" X " if a == b else cell for b in range(gpus)] for a in range(gpus)]
    return [header, *([names[a], *cells[a], affinity] for a in range(gpus))]


def text_of(rows: list[list[str]]) -> str:
    return "".join("\t".join(row) + "\n" for row in rows)


LISTING = "".join(
    f"GPU {i}: NVIDIA H100 80GB HBM3 (UUID: GPU-bbbbbbbb-0000-4000-8000-00000000000{i})\n"
    + "".join(f"\t Link {k}: 26.562 GB/s\n" for k in range(18))
    for i in range(3)
)


def with_nics(gpus: int, *nics: str) -> list[list[str]]:
    rows = mesh(gpus, "SYS")
    rows[0][1 + gpus : 1 + gpus] = nics
    for row in rows[1:]:
        row[1 + gpus : 1 + gpus] = ["NODE"] * len(nics)
    for nic in nics:
        own = [" X " if other == nic else "PIX" for other in nics]
        rows.append([nic, *["NODE"] * gpus, *own, "", "", ""])
    return rows
