from pathlib import Path

from fleet.check import check_fleet
from fleet.fields import AbsenceReason
from fleet.merge import merge_snapshots
from fleet.model import Allocation, FabricState, NvlinkFabric
from fleet.sources import nvidia_smi, nvidia_smi_topo
from tests.fleet.sources.nvidia_smi_texts import HOST, MIB, document, gpu, read_xml


def test_the_sample_dgx_h100_reads_as_its_text_says(root: Path) -> None:
    content = (root / "samples/captures/dgx-h100-01/nvidia-smi-q.xml").read_bytes()
    snapshot = read_xml(content)
    buses = ["1b", "43", "52", "61", "9d", "c3", "d1", "df"]
    assert [g.pci_address for g in snapshot.wiring.gpus] == [f"00000000:{b}:00.0" for b in buses]
    assert {g.memory_bytes for g in snapshot.wiring.gpus} == {85520809984}
    assert [g.module_id for g in snapshot.wiring.gpus] == [2, 4, 3, 1, 6, 8, 7, 5]
    assert snapshot.gpus[7].uuid == "GPU-d6810001-0007-4a00-8b00-5a5a5a5a5a07"
    assert {g.fabric for g in snapshot.gpus} == {NvlinkFabric(state=FabricState.SINGLE_NODE)}
    assert snapshot.allocations == (
        Allocation(holder="pid 41872 /opt/venv/bin/python3", slots=(3,)),
    )


def test_xml_and_matrix_of_one_machine_make_one_whole_node(root: Path) -> None:
    folder = root / "samples/captures/dgx-h100-01"
    (xml,) = nvidia_smi.read((folder / "nvidia-smi-q.xml").read_bytes(), where="q", host=HOST)
    (topo,) = nvidia_smi_topo.read(
        (folder / "nvidia-smi-topo-m.txt").read_bytes(), where="m", host=HOST
    )
    fleet = merge_snapshots([topo, xml])
    assert fleet.conflicts == ()
    assert check_fleet(fleet) == ()
    (node,), (shape,) = fleet.nodes, fleet.shapes
    assert fleet.gpu_count == 8
    assert all(gpu.uuid and gpu.serial and gpu.fabric for gpu in node.gpus)
    assert {gpu.memory_bytes for gpu in shape.gpus} == {81559 * MIB}
    assert [gpu.numa for gpu in shape.gpus] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert [[(str(p.end), p.count) for p in gpu.ports] for gpu in shape.gpus] == [
        [("switch", 18)]
    ] * 8
    assert len(shape.nics) == 10
    assert {absence.path for absence in node.absences} == {
        "nics[*].guid",
        "sections[devices/nvidia_smi].collected_at",
        "sections[links/nvidia_smi_topo].collected_at",
        "sections[network/nvidia_smi_topo].collected_at",
        "sections[use/nvidia_smi].collected_at",
        "wiring.gpus[*].compute_capability",
        "wiring.gpus[*].ports[*].bytes_per_s",
        "wiring.gpus[*].ports[*].version",
        "wiring.nics[*].numa",
        "wiring.nics[*].pci_address",
        "wiring.nics[*].ports[*].bytes_per_s",
        "wiring.nvswitches",
    }


def test_a_merged_node_gives_its_snapshot_again(root: Path) -> None:
    for name in ("dgx-h100-01", "l40s-8"):
        folder = root / "samples/captures" / name
        xml = read_xml((folder / "nvidia-smi-q.xml").read_bytes())
        topo = (folder / "nvidia-smi-topo-m.txt").read_bytes()
        parts = [xml, *nvidia_smi_topo.read(topo, where="m", host=HOST)]
        fleet = merge_snapshots(parts)
        assert merge_snapshots(reversed(parts)) == fleet
        assert (len(fleet.nodes), len(fleet.shapes), fleet.conflicts) == (1, 1, ())


def test_the_reasons_used_are_reasons_of_the_model() -> None:
    snapshot = read_xml(document(gpu()))
    assert {absence.reason for absence in snapshot.absences} <= set(AbsenceReason)
