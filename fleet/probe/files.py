"""The kernel's files of one node: PCI, NUMA, network. Reads below a root, understands nothing.

Order: what the kernel answers from memory first, for all devices; then what it must ask a device
for, whose firmware may never answer (PCIe links, speeds of interfaces, states of InfiniBand ports).
Every device is announced by the path that is read next, so that the parent knows what hung, and can
have it skipped. Nothing here starts, writes or wakes anything on purpose.
"""

import errno
import os
import re
import stat
from typing import TYPE_CHECKING, Dict, Iterable, List, Optional, Pattern, Sequence, Set, Tuple

PCI = "/sys/bus/pci/devices"
NUMA = "/sys/devices/system/node"
CPU = "/proc/cpuinfo"
INFINIBAND = "/sys/class/infiniband"
NET = "/sys/class/net"
CXI = "/sys/class/cxi"

LARGEST_VALUE_BYTES = 4096
MOST_ENTRIES = 4096
"""Of one folder; eight HCAs of 127 virtual functions each make some 1,300 PCI devices."""

MOST_LINKS = 40
"""On one way, as the kernel has it."""

NVIDIA = "0x10de"
NETWORK_CLASS = "0x02"
NVIDIA_CLASSES = ("0x0300", "0x0302", "0x0680")
"""Display and 3D controllers, which are GPUs, and NVSwitches."""

_PCI_KEPT = ("vendor", "device", "class", "subsystem_vendor", "subsystem_device", "numa_node")
_PCI_ASKED = ("max_link_speed", "max_link_width", "current_link_speed", "current_link_width")
_HCA_KEPT = ("node_guid", "sys_image_guid", "hca_type", "fw_ver", "board_id")
_PORT_ASKED = ("state", "phys_state", "rate", "lid", "sm_lid")
_INTERFACE_KEPT = ("address", "type", "operstate", "carrier_down_count")
_INTERFACE_ASKED = ("carrier", "speed")

_PCI_NAME = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]\Z")
_NODE_NAME = re.compile(r"node[0-9]{1,4}\Z")
_PORT_NAME = re.compile(r"[0-9]{1,3}\Z")
_DEVICE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@+-]{0,63}\Z")
_LINK_TEXT = re.compile(r"[ -~]{1,512}\Z")
_ABSENT = (errno.ENOENT, errno.ENOTDIR)

Found = Tuple[Dict[str, str], Dict[str, str], Dict[str, str]]

if TYPE_CHECKING:
    from typing import Protocol

    class Out(Protocol):
        """Where what is read goes; paths are those on the node, without the root."""

        def asking(self, key: str) -> None:
            """Take the path that is read next."""

        def file(self, path: str, text: str) -> None:
            """Take a file's content."""

        def link(self, path: str, target: str) -> None:
            """Take a link's target, as its text."""

        def unreadable(self, path: str, errno_name: str) -> None:
            """Take why something that is there could not be read (``EACCES``)."""


def read_pci(root: str, out: "Out", skip: Sequence[str] = ()) -> None:
    """NUMA nodes, CPU, and of PCI the GPUs, NVSwitches, network controllers and bridges above them.

    ``skip`` holds announced paths that are not to be read again.
    """
    tree = _Tree(root, out, skip)
    _read_numa_and_cpu(tree)
    chosen = _chosen_devices(tree)
    for folder in chosen:
        if tree.announce(folder):
            tree.read(folder, _PCI_KEPT)
    for folder in chosen:
        tree.ask(folder, _PCI_ASKED)


def read_network(root: str, out: "Out", skip: Sequence[str] = ()) -> None:
    """HCAs with their ports, and physical interfaces; of virtual functions only whose they are.

    ``skip`` holds announced paths that are not to be read again.
    """
    tree = _Tree(root, out, skip)
    hcas = _adapters(tree)
    living = [hca for hca in hcas if not tree.was_stuck_in(hca)]
    ports = [port for hca in living for port in _ports_of(tree, hca)]
    interfaces = _interfaces(tree)
    for name in tree.names(CXI, _DEVICE_NAME):
        tree.link(os.path.join(CXI, name))
    for folder in interfaces:
        tree.ask(folder, _INTERFACE_ASKED)
    for folder in ports:
        tree.ask(folder, _PORT_ASKED)
        tree.ask(os.path.join(folder, "counters"), ("link_downed",))


def is_network(path: str) -> bool:
    """Whether a path is one that ``read_network`` reads, and ``read_pci`` does not."""
    return path.startswith((INFINIBAND, NET, CXI))


def files_below(root: str) -> Found:
    """All of both chapters below a root: files, links, and what could not be read."""
    found = _Collected()
    read_pci(root, found)
    read_network(root, found)
    return found.files, found.links, found.refused


class _Collected:
    """Keeps what is found."""

    def __init__(self) -> None:
        self.files: Dict[str, str] = {}
        self.links: Dict[str, str] = {}
        self.refused: Dict[str, str] = {}

    def asking(self, key: str) -> None:
        """Nobody waits for it."""

    def file(self, path: str, text: str) -> None:
        self.files[path] = text

    def link(self, path: str, target: str) -> None:
        self.links[path] = target

    def unreadable(self, path: str, errno_name: str) -> None:
        self.refused[path] = errno_name


def _read_numa_and_cpu(tree: "_Tree") -> None:
    for name in tree.names(NUMA, _NODE_NAME):
        tree.read(os.path.join(NUMA, name), ("cpulist",))
    tree.read_first_block(CPU)


def _chosen_devices(tree: "_Tree") -> List[str]:
    """Folders of the devices of interest and of the bridges above them, in order."""
    chosen: Set[str] = set()
    names = tree.names(PCI, _PCI_NAME)
    for name in names:
        chosen.update(_with_bridges(tree, name))
    folders = [os.path.join(PCI, name) for name in names if name in chosen]
    for folder in folders:
        tree.link(folder)
    return folders


def _with_bridges(tree: "_Tree", name: str) -> List[str]:
    """Names of a device of interest and of the bridges above it; none for another device."""
    folder = os.path.join(PCI, name)
    if not tree.announce(folder):
        return []
    vendor, class_code = tree.text(folder, "vendor"), tree.text(folder, "class")
    if not _is_of_interest((vendor or "").strip(), (class_code or "").strip()):
        return []
    if tree.link(os.path.join(folder, "physfn")) is not None:
        return []  # a virtual function of this host: part of the device it belongs to
    if (vendor or "").strip() == NVIDIA:
        tree.link(os.path.join(folder, "driver"))  # may be another's on purpose: vfio-pci, nouveau
    above = (tree.target(folder) or "").split("/")
    return [name] + [step for step in above if _PCI_NAME.match(step)]


def _is_of_interest(vendor: str, class_code: str) -> bool:
    is_nvidia = vendor == NVIDIA and class_code[:6] in NVIDIA_CLASSES
    return is_nvidia or class_code.startswith(NETWORK_CLASS)


def _adapters(tree: "_Tree") -> List[str]:
    """Folders of the HCAs that are read; a virtual function of this host is not."""
    folders = []
    for name in tree.names(INFINIBAND, _DEVICE_NAME):
        folder = os.path.join(INFINIBAND, name)
        if _is_own_device(tree, folder):
            tree.read(folder, _HCA_KEPT)
            folders.append(folder)
    return folders


def _ports_of(tree: "_Tree", hca: str) -> List[str]:
    ports = os.path.join(hca, "ports")
    folders = [os.path.join(ports, name) for name in tree.names(ports, _PORT_NAME)]
    for folder in folders:
        tree.read(folder, ("link_layer",))
    return folders


def _interfaces(tree: "_Tree") -> List[str]:
    """Folders of the interfaces that belong to a device; bridges, bonds and tunnels do not."""
    folders = []
    for name in tree.names(NET, _DEVICE_NAME):
        folder = os.path.join(NET, name)
        is_physical = tree.target(os.path.join(folder, "device")) is not None
        if is_physical and _is_own_device(tree, folder):
            tree.read(folder, _INTERFACE_KEPT)
            folders.append(folder)
    return folders


def _is_own_device(tree: "_Tree", folder: str) -> bool:
    """Announces a class's device and keeps its links; not one that is a virtual function."""
    if not tree.announce(folder):
        return False
    tree.link(folder)
    tree.link(os.path.join(folder, "device"))
    return tree.link(os.path.join(folder, "device", "physfn")) is None


class _Tree:
    """A root directory: reads what lies below it and never what lies outside."""

    def __init__(self, root: str, out: "Out", skip: Iterable[str]) -> None:
        self._root = os.path.realpath(root).rstrip("/")
        self._out = out
        self._skip = frozenset(skip)
        self._known: Dict[str, str] = {}
        self._steps: Dict[str, str] = {}

    def announce(self, path: str) -> bool:
        """Say what is read next; False where it is to be skipped."""
        if path in self._skip:
            return False
        self._out.asking(path)
        return True

    def was_stuck_in(self, folder: str) -> bool:
        """Whether something below a device is to be skipped: the rest of it would hang as well."""
        return any(path.startswith(folder + "/") for path in self._skip)

    def names(self, folder: str, form: "Pattern[str]") -> List[str]:
        """Names of the wanted form in a folder, in order; that it is not there is told too."""
        if not self.announce(folder):
            return []
        try:
            names = sorted(name for name in os.listdir(self._real(folder)) if form.match(name))
            if len(names) > MOST_ENTRIES:
                self._out.unreadable(folder, "E2BIG")
            return names[:MOST_ENTRIES]
        except OSError as error:
            self._refuse(folder, error)
            return []

    def ask(self, folder: str, names: Sequence[str]) -> None:
        """Read files for which the kernel asks the device, after announcing the first."""
        if self.announce(os.path.join(folder, names[0])):
            self.read(folder, names)

    def read(self, folder: str, names: Sequence[str]) -> None:
        """Give the content of a folder's files; one that is not there is left out."""
        for name in names:
            text = self.text(folder, name)
            if text is not None:
                self._out.file("{}/{}".format(folder, name), text)

    def text(self, folder: str, name: str) -> Optional[str]:
        """A file's content; None where it is not there or was told as unreadable."""
        try:
            content = _content("{}/{}".format(self._real(folder), name))
            if len(content) > LARGEST_VALUE_BYTES:
                raise OSError(errno.EFBIG, "longer than any value of the kernel's")
            return content.decode("utf-8")
        except OSError as error:
            if error.errno not in _ABSENT:
                self._refuse(os.path.join(folder, name), error)
        except UnicodeDecodeError:
            self._out.unreadable(os.path.join(folder, name), "EILSEQ")
        return None

    def read_first_block(self, path: str) -> None:
        """Give a file's text up to its first empty line."""
        folder, name = os.path.split(path)
        self._out.asking(path)
        try:
            content = _content(os.path.join(self._real(folder), name))
        except OSError as error:
            if error.errno not in _ABSENT:
                self._refuse(path, error)
            return
        block = content[:LARGEST_VALUE_BYTES].partition(b"\n\n")[0]
        self._out.file(path, block.decode("utf-8", "replace"))

    def link(self, path: str) -> Optional[str]:
        """Give a link's target; None where there is no link."""
        target = self.target(path)
        if target is not None:
            self._out.link(path, target)
        return target

    def target(self, path: str) -> Optional[str]:
        """A link's target as its text; None where there is no link or it cannot be text."""
        folder, _, name = path.rpartition("/")
        try:
            target = os.readlink("{}/{}".format(self._real(folder), name))
        except OSError as error:
            if error.errno not in (*_ABSENT, errno.EINVAL):
                self._refuse(path, error)
            return None
        return target if _LINK_TEXT.match(target) else None

    def _real(self, folder: str) -> str:
        """Where a folder really is.

        Raises:
            OSError: EXDEV, outside the root; ELOOP, links that lead to each other.
        """
        real = self._known.get(folder)
        if real is None:
            real = self._known[folder] = self._followed(folder)
        if not (real + "/").startswith(self._root + "/"):
            raise OSError(errno.EXDEV, "outside the root", folder)
        return real

    def _followed(self, folder: str) -> str:
        """Where a folder's links lead; its parent's are known, so that only its own is looked at.

        Raises:
            OSError: EXDEV, a parent is outside the root; ELOOP.
        """
        above, _, name = folder.rpartition("/")
        return self._step(self._real(above), name) if name else self._root

    def _step(self, place: str, name: str, links: int = 0) -> str:
        """Where one step from a real place leads, through so many links so far.

        Raises:
            OSError: ELOOP, links that lead to each other.
        """
        if name in ("", "."):
            return place
        if name == "..":
            return place.rpartition("/")[0]
        there = "{}/{}".format(place, name)
        if there not in self._steps:
            self._steps[there] = self._through(place, there, links)
        return self._steps[there]

    def _through(self, place: str, there: str, links: int) -> str:
        if not os.path.islink(there):
            return there
        if links >= MOST_LINKS:
            raise OSError(errno.ELOOP, "links without end", there)
        target = os.readlink(there)
        place = "" if target.startswith("/") else place
        for name in target.split("/"):
            place = self._step(place, name, links + 1)
        return place

    def _refuse(self, path: str, error: OSError) -> None:
        number = error.errno or 0
        self._out.unreadable(path, errno.errorcode.get(number, str(number)))


def _content(path: str) -> bytes:
    """The first bytes of a plain file, one more than a value may have.

    Raises:
        OSError: it cannot be read, or is a link or no plain file.
    """
    # Not blocking: in a captured tree a name may be a pipe that nobody writes.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "no plain file", path)
        return _all_of(descriptor)
    finally:
        os.close(descriptor)


def _all_of(descriptor: int) -> bytes:
    content = b""
    while len(content) <= LARGEST_VALUE_BYTES:
        more = os.read(descriptor, LARGEST_VALUE_BYTES + 1 - len(content))
        if not more:
            break
        content += more
    return content
