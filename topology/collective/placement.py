"""Placement: which endpoint carries which rank. Packs, spreads, reads and writes placements."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, zip_longest
from reprlib import repr as short_repr
from typing import Any, Final, TypeVar

from fleet import HostName
from fleet.naming import name_runs
from topology.errors import WorkloadError
from topology.fabric.domains import NvlinkDomain
from topology.fabric.from_fleet import Fabric, slot_from_text
from topology.fabric.routes import Endpoint

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Placement:
    """Endpoints in rank order."""

    endpoints: tuple[Endpoint, ...]

    @property
    def ranks(self) -> int:
        """World size."""
        return len(self.endpoints)

    @property
    def hosts(self) -> tuple[HostName, ...]:
        """Hosts in the order of their first rank."""
        return tuple(dict.fromkeys(endpoint.host for endpoint in self.endpoints))

    def text(self) -> str:
        """One ``host slot`` a line, in rank order: the form ``--placement`` reads."""
        return "".join(f"{endpoint.host} {endpoint.slot}\n" for endpoint in self.endpoints)

    def summary(self) -> str:
        """Hosts with their counts; hosts that are numbered in a row and hold as many are folded.

        >>> ends = [Endpoint(HostName(f"n{i}"), s) for i in (1, 2, 3, 5) for s in range(2)]
        >>> Placement(tuple(ends)).summary()
        'n1..3 x 2, n5 x 2'
        """
        count: dict[str, int] = defaultdict(int)
        for endpoint in self.endpoints:
            count[endpoint.host] += 1
        return ", ".join(
            f"{run} x {number}"
            for number, hosts in groupby(count, key=lambda host: count[host])
            for run in name_runs(hosts)
        )


def free_endpoints(fabric: Fabric) -> list[Endpoint]:
    """Endpoints that nobody holds, node by node."""
    return [endpoint for endpoint in fabric.endpoints if fabric.is_free(endpoint)]


def pack(fabric: Fabric, ranks: int, *, among: Sequence[Endpoint] | None = None) -> Placement:
    """As few NVLink domains and nodes as possible, ``among`` these endpoints or all.

    The smallest domain that has room; else domains with most room first, of equals those of the
    node with most room, fewest nodes within each.

    Raises:
        WorkloadError: more ranks than endpoints.
    """
    endpoints = _enough(fabric, ranks, among)
    by_domain = _by_domain(fabric, endpoints)
    fitting = [ends for ends in by_domain.values() if len(ends) >= ranks]
    if fitting:
        smallest = min(fitting, key=len)
        return Placement(tuple(fewest_nodes(smallest, ranks)))
    taken: list[Endpoint] = []
    on_host = Counter(endpoint.host for endpoint in endpoints)
    for ends in sorted(by_domain.values(), key=lambda ends: (-len(ends), -on_host[ends[0].host])):
        room = ranks - len(taken)
        if room <= 0:
            break
        taken += fewest_nodes(ends, min(room, len(ends)))
    return Placement(tuple(_in_fabric_order(fabric, taken)))


def spread(fabric: Fabric, ranks: int, *, among: Sequence[Endpoint] | None = None) -> Placement:
    """Over as many nodes as there are, evenly, ``among`` these endpoints or all.

    Fewer ranks than nodes: by turns from every NVLink domain, or group of nodes on one leaf.

    Raises:
        WorkloadError: more ranks than endpoints.
    """
    by_host = _by_host(_enough(fabric, ranks, among))
    groups: dict[Hashable, list[HostName]] = defaultdict(list)
    for host, ends in by_host.items():
        domain = fabric.domain_of(ends[0])
        groups[domain.name if len(domain.hosts) > 1 else fabric.leaves_of(host)].append(host)
    hosts = _by_turns(groups.values())
    taken = _by_turns([by_host[host] for host in hosts])
    return Placement(tuple(_in_fabric_order(fabric, taken[:ranks])))


def balance(fabric: Fabric, ranks: int, *, among: Sequence[Endpoint] | None = None) -> Placement:
    """Even shares of the fewest NVLink domains, each on its fewest nodes.

    GPUs of a node without NVLink between them count as one domain here.

    Raises:
        WorkloadError: more ranks than endpoints.
    """
    by_unit: dict[Hashable, list[Endpoint]] = defaultdict(list)
    for endpoint in _enough(fabric, ranks, among):
        domain = fabric.domain_of(endpoint)
        by_unit[domain.name if len(domain.endpoints) > 1 else endpoint.host].append(endpoint)
    units = sorted(by_unit.values(), key=len, reverse=True)
    room = accumulate(map(len, units))
    fewest = next(n for n, together in enumerate(room, start=1) if together >= ranks)
    taken: list[Endpoint] = []
    for left, unit in zip(range(fewest, 0, -1), reversed(units[:fewest]), strict=True):
        share = min(len(unit), (ranks - len(taken)) // left)
        taken += fewest_nodes(unit, share)
    return Placement(tuple(_in_fabric_order(fabric, taken)))


def placement_from_text(fabric: Fabric, text: str, *, where: str) -> Placement:
    """A placement from ``host slot`` lines in rank order (slot 3 or gpu3); # begins a comment.

    Raises:
        WorkloadError: a line that is no endpoint of the map, or an endpoint that stands twice.
    """
    seen: dict[Endpoint, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        field = f"line {number}"
        slot = slot_from_text(words[-1].removeprefix("gpu"))
        if len(words) != 2 or slot is None:
            problem = short_repr(line)
            raise WorkloadError(problem, where=where, field=field, remedy="write: host slot")
        endpoint = Endpoint(HostName(words[0]), slot)
        try:
            fabric.checked(endpoint)
        except WorkloadError as error:
            raise WorkloadError(
                error.problem, where=where, field=field, remedy=error.remedy
            ) from None
        if endpoint in seen:
            problem = f"{endpoint} stands already on line {seen[endpoint]}"
            raise WorkloadError(problem, where=where, field=field, remedy="name each slot once")
        seen[endpoint] = number
    if not seen:
        raise WorkloadError("no ranks", where=where, remedy="write one host and slot a line")
    return Placement(tuple(seen))


def fewest_nodes(endpoints: Sequence[Endpoint], ranks: int) -> list[Endpoint]:
    """Ranks on as few of these endpoints' nodes as can be: fullest first, the last best-fitting."""
    by_host = _by_host(endpoints)
    order = {host: i for i, host in enumerate(by_host)}
    taken: list[Endpoint] = []
    hosts = sorted(by_host, key=lambda host: (-len(by_host[host]), order[host]))
    while hosts and len(taken) < ranks:
        room = ranks - len(taken)
        fitting = [host for host in hosts if len(by_host[host]) >= room]
        host = min(fitting, key=lambda h: (len(by_host[h]), order[h])) if fitting else hosts[0]
        taken += by_host[host][:room]
        hosts.remove(host)
    return sorted(taken, key=lambda endpoint: (order[endpoint.host], endpoint.slot))


def domains_with_room(fabric: Fabric, ranks: int) -> list[NvlinkDomain]:
    """NVLink domains with enough free endpoints, smallest first."""
    free = _by_domain(fabric, free_endpoints(fabric))
    names = sorted(
        (n for n, ends in free.items() if len(ends) >= ranks), key=lambda n: len(free[n])
    )
    by_name = {domain.name: domain for domain in fabric.domains}
    return [by_name[name] for name in names]


def largest_free_domain(fabric: Fabric) -> int:
    """Most free endpoints of one NVLink domain."""
    return max(
        (len(ends) for ends in _by_domain(fabric, free_endpoints(fabric)).values()), default=0
    )


def _enough(fabric: Fabric, ranks: int, among: Sequence[Endpoint] | None) -> Sequence[Endpoint]:
    """The endpoints to choose from, if there are as many as ranks."""
    endpoints = fabric.endpoints if among is None else among
    if ranks < 1:
        raise WorkloadError(f"{ranks} ranks", field="--gpus", remedy="ask for one or more")
    if ranks > len(endpoints):
        raise WorkloadError(
            f"{ranks} ranks asked of {len(endpoints)}",
            field="--gpus",
            remedy=f"ask for {len(endpoints)} or fewer" if endpoints else "the map has none",
        )
    return endpoints


def _by_host(endpoints: Iterable[Endpoint]) -> dict[HostName, list[Endpoint]]:
    by_host: dict[HostName, list[Endpoint]] = defaultdict(list)
    for endpoint in endpoints:
        by_host[endpoint.host].append(endpoint)
    return dict(by_host)


def _by_domain(fabric: Fabric, endpoints: Iterable[Endpoint]) -> dict[str, list[Endpoint]]:
    by_domain: dict[str, list[Endpoint]] = defaultdict(list)
    for endpoint in endpoints:
        by_domain[fabric.domain_of(endpoint).name].append(endpoint)
    return dict(by_domain)


def _by_turns(groups: Iterable[Sequence[T]]) -> list[T]:
    """The first of each group, then the second of each, and so on.

    >>> _by_turns(["abc", "d", "ef"])
    ['a', 'd', 'e', 'b', 'f', 'c']
    """
    rows = zip_longest(*groups, fillvalue=_NOBODY)
    return [item for row in rows for item in row if item is not _NOBODY]


_NOBODY: Final[Any] = object()


def _in_fabric_order(fabric: Fabric, endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    order = {endpoint: i for i, endpoint in enumerate(fabric.endpoints)}
    return sorted(endpoints, key=order.__getitem__)
