"""A reading from the network is untrusted: whatever its files say, it is understood or refused."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.errors import FleetError
from fleet.fields import HostName
from fleet.model import NodeSnapshot
from fleet.probe.files import files_below
from fleet.reading import Stop, StopReason
from fleet.sources.sysfs import completed, snapshot_from_files
from tests.contracts import assert_honest
from tests.fakes.sysfs_trees import CASSINI, CONNECTX7, GPU, NVSWITCH, SysTree, switched
from tests.fleet.sources.sysfs_snapshots import NOW

Texts = Mapping[str, str]


@cache
def plain() -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """A small node with one of everything."""
    with TemporaryDirectory() as folder:
        tree = SysTree(Path(folder))
        tree.cpu()
        tree.numa(0, "0-3")
        tree.numa(1, "4-7")
        switch = f"{switched(tree, 0x15, numa=0)}/0000:17"
        tree.pci(f"{switch}:01.0/0000:19:00.0", **GPU)
        tree.pci("pci0000:97/0000:97:01.0/0000:98:00.0", **GPU, numa=1)
        tree.pci("pci0000:80/0000:80:01.0/0000:81:00.0", **NVSWITCH, numa=1)
        tree.hca("mlx5_0", tree.pci(f"{switch}:02.0/0000:1a:00.0", **CONNECTX7), ports=2)
        tree.interface("hsn0", tree.pci(f"{switch}:03.0/0000:1b:00.0", **CASSINI))
        return files_below(folder)


PCI_NAMES = st.sampled_from(["0000:19:00.0", "0000:98:00.0", "10000:1a:00.0", "00000000:19:00.0"])
TEXTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [
            *("0x10de", "0x030200", "0x020000", "0x1d0f", "0xefa1", "-1", "0", "99999999999"),
            *("32.0 GT/s PCIe", "N/A", "[N/A]", "None", "\x00", "1e9", "4: ACTIVE", "9: N/A"),
            *("400 Gb/sec (4X NDR)", "InfiniBand", "up", "0-3,8", "b8ce:f603:00ab:cdef"),
            *("vendor_id\t: \u00e9\ncpu family\t: 6\nmodel\t: 1", "flags : hypervisor", "\u0663"),
        ]
    ),
)
TARGETS = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.one_of(PCI_NAMES, st.sampled_from(["..", "devices", "pci0000:15", "virtual", "usb1"])),
        max_size=8,
    ).map("/".join),
)
NAMES = st.one_of(PCI_NAMES, st.text(max_size=20), st.sampled_from(["mlx5_0", "eth0", "node7"]))
PATHS = st.one_of(
    st.sampled_from(sorted({**plain()[0], **plain()[1]})),
    st.builds(
        "/".join,
        st.tuples(
            st.sampled_from(
                [
                    "/sys/bus/pci/devices",
                    "/sys/class/infiniband",
                    "/sys/class/net",
                    "/sys/class/cxi",
                ]
            ),
            NAMES,
            st.sampled_from(
                ["vendor", "class", "device", "physfn", "ports/0/state", "ports/7/rate"]
            ),
        ),
    ),
    st.text(min_size=1, max_size=60),
)
STOPS = st.builds(
    Stop,
    chapter=st.sampled_from(["pci /", "network /", "gpu 3"]),
    at=PATHS,
    reason=st.sampled_from(StopReason),
    waited_s=st.just(1.0),
)


def understood(
    files: Texts, links: Texts, unreadable: Texts, stops: list[Stop]
) -> NodeSnapshot | None:
    try:
        return snapshot_from_files(
            files, links, unreadable, host=HostName("node1"), collected_at=NOW, stops=stops
        )
    except FleetError:
        return None


@settings(deadline=None, max_examples=40)
@given(
    files=st.dictionaries(PATHS, TEXTS, max_size=12),
    links=st.dictionaries(PATHS, TARGETS, max_size=12),
    unreadable=st.dictionaries(PATHS, TEXTS.filter(bool), max_size=6),
    stops=st.lists(STOPS, max_size=3),
)
def test_arbitrary_files_are_understood_or_refused(
    files: Texts, links: Texts, unreadable: Texts, stops: list[Stop]
) -> None:
    snapshot = understood(files, links, unreadable, stops)
    if snapshot is not None:
        assert_honest(snapshot)


@settings(deadline=None, max_examples=40)
@given(
    files=st.dictionaries(PATHS, TEXTS, max_size=6),
    links=st.dictionaries(PATHS, TARGETS, max_size=6),
    gone=st.sets(PATHS, max_size=6),
    unreadable=st.dictionaries(PATHS, st.sampled_from(["EACCES", "EIO", "EILSEQ"]), max_size=4),
    stops=st.lists(STOPS, max_size=2),
)
def test_a_real_node_with_faults_is_understood_or_refused(
    files: Texts, links: Texts, gone: set[str], unreadable: Texts, stops: list[Stop]
) -> None:
    whole, ways, _ = plain()
    kept = {path: text for path, text in {**whole, **files}.items() if path not in gone}
    left = {path: text for path, text in {**ways, **links}.items() if path not in gone}
    snapshot = understood(kept, left, unreadable, stops)
    if snapshot is not None:
        assert_honest(snapshot)
        driver = understood(*plain(), [])
        assert driver is not None
        assert_honest(completed(driver, snapshot))
        assert_honest(completed(snapshot, driver))
