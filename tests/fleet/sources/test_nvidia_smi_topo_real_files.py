import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from fleet.sources import nvidia_smi_topo
from fleet.wiring import EndKind
from tests.fleet.sources.nvidia_smi_texts import (
    levels,
    links,
    read_matrix,
    said,
)


@dataclass(frozen=True)
class Real:
    """What the file says, told by eye from its text; links by the peer or the switch."""

    numa: Sequence[int | None]
    nics: tuple[str, ...] = ()
    rails: tuple[int | None, ...] = ()
    links_of_gpu0: tuple[tuple[str, int], ...] = ()


REAL = {
    "a10-4gpu-sys-2nic.txt": Real([0] * 4, ("mlx5_0", "mlx5_1"), (None, None)),
    "aws-1gpu-efa.txt": Real([0]),
    "cloud-4gpu-node-vm.txt": Real([0] * 4),
    "desktop-2gpu-nv2.txt": Real([0] * 2, links_of_gpu0=(("gpu1", 2),)),
    "dgx1v-8xv100-hybrid-cube-mesh.txt": Real(
        [None] * 8,
        ("mlx5_0", "mlx5_2", "mlx5_1", "mlx5_3"),
        (0, 1, 2, 3),
        (("gpu1", 1), ("gpu2", 1), ("gpu3", 2), ("gpu4", 2)),
    ),
    "dgxa100-8gpu-10nic-tabs.txt": Real(
        [3, 3, 1, 1, 7, 7, 5, 5],
        tuple(f"mlx5_{i}" for i in range(10)),
        (0, 1, 2, 3, 4, 5, 6, 7, None, None),
        (("switch", 12),),
    ),
    "gtx1080ti-2gpu-phb.txt": Real([None] * 2),
    "h100-8gpu-8nic-pix.txt": Real(
        [0] * 4 + [1] * 4,
        tuple(f"mlx5_{i}" for i in range(8)),
        tuple(range(8)),
        (("switch", 18),),
    ),
    "h200-8gpu-10nic-tabs.txt": Real(
        [0] * 4 + [1] * 4,
        tuple(f"mlx5_{i}" for i in range(10)),
        tuple(range(10)),
        (("switch", 18),),
    ),
    "p100-2gpu-nv1-mlx5.txt": Real([None] * 2, ("mlx5_0",), (None,), (("gpu1", 1),)),
    "pcie-8gpu-all-sys.txt": Real([0] * 4 + [1] * 4),
    "pcie-8gpu-uneven-numa.txt": Real([0] * 6 + [1] * 2),
    "power9-4xv100-nv3-4nic.txt": Real(
        [None] * 4, tuple(f"mlx5_{i}" for i in range(4)), (None,) * 4, (("gpu1", 3),)
    ),
    "princeton-tigergpu-4xp100-oddeven.txt": Real([0, 0, 1, 1], ("mlx5_0",), (None,)),
    "rtx3090-2gpu-nvlink-with-nvlink-s.txt": Real([0] * 2, links_of_gpu0=(("gpu1", 4),)),
    "rtx5090-2gpu-phb.txt": Real([0] * 2),
    "rtxa4000-4gpu-node.txt": Real([0] * 4),
    "v100-4gpu-mlx5-column.txt": Real(
        [None] * 4, ("mlx5_0",), (None,), (("gpu1", 1), ("gpu2", 1), ("gpu3", 2))
    ),
    "v100-8gpu-single-socket-4nic.txt": Real(
        [None] * 8,
        tuple(f"mlx5_{i}" for i in range(4)),
        (0, None, 1, None),
        (("gpu1", 2), ("gpu2", 2), ("gpu3", 1), ("gpu4", 1)),
    ),
}


def naive_rows(text: str) -> dict[str, list[str]]:
    """Rows by their name as a plain split of each line sees them."""
    rows = {}
    for line in text.splitlines():
        words = line.split()
        if words and re.fullmatch(r"GPU\d+", words[0]) and "X" in words:
            rows[words[0]] = words[1:]
    return rows


@pytest.mark.parametrize("name", sorted(REAL))
def test_real_matrices_are_read_as_they_say(artifacts: Path, name: str) -> None:
    content = (artifacts / "nvidia-smi-topo" / name).read_bytes()
    expected = REAL[name]
    snapshot = read_matrix(content)
    wiring = snapshot.wiring
    assert nvidia_smi_topo.recognises(content.decode())
    assert [gpu.numa for gpu in wiring.gpus] == expected.numa
    assert tuple(nic.ports[0].name for nic in wiring.nics) == expected.nics
    assert tuple(nic.ports[0].rail for nic in wiring.nics) == expected.rails
    assert links(snapshot, 0) == expected.links_of_gpu0


@pytest.mark.parametrize("name", sorted(REAL))
def test_every_nv_cell_of_a_real_matrix_is_a_port(artifacts: Path, name: str) -> None:
    content = (artifacts / "nvidia-smi-topo" / name).read_bytes()
    rows = naive_rows(content.decode())
    snapshot = read_matrix(content)
    assert len(rows) == len(snapshot.gpus) == len(snapshot.wiring.gpus)
    for slot, gpu in enumerate(snapshot.wiring.gpus):
        cells = enumerate(rows[f"GPU{slot}"][: len(rows)])
        counted = {f"gpu{peer}": int(c[2:]) for peer, c in cells if c.startswith("NV")}
        if any(port.end.kind is EndKind.SWITCH for port in gpu.ports):
            assert links(snapshot, slot) == (("switch", max(counted.values())),)
            assert len(counted) == len(rows) - 1
        else:
            assert dict(links(snapshot, slot)) == counted


@pytest.mark.parametrize("name", sorted(REAL))
def test_every_other_cell_of_a_real_matrix_is_a_level(artifacts: Path, name: str) -> None:
    content = (artifacts / "nvidia-smi-topo" / name).read_bytes()
    snapshot = read_matrix(content)
    columns = len(snapshot.wiring.gpus) + len(snapshot.wiring.nics)
    rows = naive_rows(content.decode())
    expected: Counter[str] = Counter()
    for slot in range(len(rows)):
        expected.update(cell.lower() for cell in rows[f"GPU{slot}"][slot + 1 : columns])
    counted = Counter(p.level.value for p in snapshot.wiring.pcie_levels if p.a.startswith("gpu"))
    assert counted == Counter({k: n for k, n in expected.items() if not k.startswith("nv")})
    nic_pairs = [p for p in snapshot.wiring.pcie_levels if p.a.startswith("nic")]
    assert len(nic_pairs) == len(snapshot.wiring.nics) * (len(snapshot.wiring.nics) - 1) // 2


def test_no_real_file_is_left_out(artifacts: Path) -> None:
    assert {path.name for path in (artifacts / "nvidia-smi-topo").iterdir()} == set(REAL)


def test_hidden_nvlinks_of_a_dgx1_leave_these_levels(artifacts: Path) -> None:
    name = "dgx1v-8xv100-hybrid-cube-mesh.txt"
    snapshot = read_matrix((artifacts / "nvidia-smi-topo" / name).read_bytes())
    level = levels(snapshot)
    assert "gpu0-gpu4" not in level
    assert (level["gpu0-gpu5"], level["gpu0-nic0"], level["gpu0-nic2"]) == ("sys", "pix", "phb")
    assert (level["gpu4-nic1"], level["nic0-nic1"], level["nic1-nic3"]) == ("pix", "sys", "phb")
    assert links(snapshot, 7) == (("gpu3", 1), ("gpu4", 2), ("gpu5", 1), ("gpu6", 2))


def test_the_h200s_three_nics_on_one_switch_are_pix_to_gpu_3(artifacts: Path) -> None:
    name = "h200-8gpu-10nic-tabs.txt"
    level = levels(read_matrix((artifacts / "nvidia-smi-topo" / name).read_bytes()))
    near = {key for key, value in level.items() if value == "pix" and key.startswith("gpu")}
    assert near == {
        *("gpu0-nic3", "gpu1-nic5", "gpu2-nic4", "gpu3-nic0", "gpu3-nic1", "gpu3-nic2"),
        *("gpu4-nic7", "gpu5-nic9", "gpu6-nic8", "gpu7-nic6"),
    }


def test_numa_nodes_hold_the_cpus_of_their_gpus(artifacts: Path) -> None:
    folder = artifacts / "nvidia-smi-topo"
    a100 = read_matrix((folder / "dgxa100-8gpu-10nic-tabs.txt").read_bytes())
    odd_even = read_matrix((folder / "princeton-tigergpu-4xp100-oddeven.txt").read_bytes())
    assert {node.numa: node.cpu_affinity for node in a100.wiring.numa_nodes} == {
        1: "16-31,144-159",
        3: "48-63,176-191",
        5: "80-95,208-223",
        7: "112-127,240-255",
    }
    assert [node.cpu_affinity for node in odd_even.wiring.numa_nodes] == [
        "0,2,4,6,8,10",
        "1,3,5,7,9,11",
    ]


def test_rates_of_nvlink_s_in_the_same_text_are_the_links_rates(artifacts: Path) -> None:
    name = "rtx3090-2gpu-nvlink-with-nvlink-s.txt"
    snapshot = read_matrix((artifacts / "nvidia-smi-topo" / name).read_bytes())
    assert [gpu.product_name for gpu in snapshot.wiring.gpus] == ["NVIDIA GeForce RTX 3090"] * 2
    assert [gpu.ports[0].bytes_per_s for gpu in snapshot.wiring.gpus] == [14.062e9, 14.062e9]
    assert [gpu.uuid for gpu in snapshot.gpus] == [None, None]
    assert said(snapshot, "gpus[0].uuid") == [("undecodable", "GPU-略-332e-08e4-72fe-略")]
