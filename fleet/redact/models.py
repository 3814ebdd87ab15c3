"""Models: where identities stand in snapshots and maps, and the walk that visits each text."""

import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from fleet.fields import TEXT, Absence, AbsenceReason
from fleet.model import (
    Allocation,
    CableEnd,
    Conflict,
    Footprint,
    GpuIdentity,
    NicIdentity,
    Node,
    NodeSnapshot,
    NvlinkFabric,
    Switch,
)
from fleet.reading import NodeReading
from fleet.redact.pseudonyms import Kind
from fleet.redact.sweep import Visit
from fleet.redact.texts import rewritten_reading
from fleet.state import GpuProcess, MigDevice, UnlistedGpu

D = TypeVar("D", bound=BaseModel)

_NODE: Final = {"host": Kind.HOST, "chassis_serial": Kind.SERIAL}
PLACES: Final[Mapping[type[BaseModel], Mapping[str, Kind]]] = {
    NodeSnapshot: _NODE,
    Node: _NODE,
    GpuIdentity: {"uuid": Kind.UUID, "serial": Kind.SERIAL},
    NvlinkFabric: {"cluster_uuid": Kind.UUID},
    NicIdentity: {"guid": Kind.GUID},
    MigDevice: {"uuid": Kind.UUID},
    UnlistedGpu: {"uuid": Kind.UUID},
    GpuProcess: {"name": Kind.PROCESS, "user": Kind.USER},
    Allocation: {"holder": Kind.HOLDER},
    Footprint: {
        "site": Kind.SITE,
        "hall": Kind.HALL,
        "row": Kind.ROW,
        "rack": Kind.RACK,
        "owner": Kind.OWNER,
    },
    Switch: {"id": Kind.SWITCH, "guid": Kind.GUID, "nvlink_domain": Kind.NVLINK_DOMAIN},
}
"""Fields that are an identity as a whole. Every other text is of a fixed form, or handled below."""

_BY_NAME: Final = {
    name: kind for places in PLACES.values() for name, kind in places.items() if name != "name"
}
_ELEMENT: Final = re.compile(r"(?P<list>nodes|switches)\[(?P<name>[^\]]+)\](?P<rest>.*)", re.DOTALL)


def rewritten(document: D, visit: Visit) -> D:
    """A document with each of its texts as the visit gives it; wiring and numbers stay."""
    special = _SPECIAL.get(type(document))
    if special is not None:
        changed = special(document, visit)
        assert isinstance(changed, type(document))
        return changed
    places = PLACES.get(type(document), {})
    update = {}
    for name in type(document).model_fields:
        value = getattr(document, name)
        new = _rewritten_value(value, places.get(name), visit)
        if new is not value:
            update[name] = new
    return document.model_copy(update=update) if update else document


def _rewritten_value(value: object, kind: Kind | None, visit: Visit) -> object:
    """The value itself where nothing in it changes."""
    if isinstance(value, BaseModel):
        return rewritten(value, visit)
    if isinstance(value, tuple):
        elements = tuple(_rewritten_value(element, kind, visit) for element in value)
        is_same = all(new is old for new, old in zip(elements, value, strict=True))
        return value if is_same else elements
    if isinstance(value, str) and not isinstance(value, Enum):
        new = visit.plain(value) if kind is None else visit.identity(kind, value)
        return value if new == value else new
    return value


def _absence(absence: Absence, visit: Visit) -> Absence:
    """Why an identity is not there may repeat what was there in its stead."""
    name = absence.path.rpartition(".")[2]
    is_identity = name in _BY_NAME and absence.reason is AbsenceReason.UNDECODABLE
    change = visit.undecoded if is_identity else visit.prose
    detail = absence.detail and change(absence.detail)[: TEXT.max_length]
    return absence.model_copy(update={"path": visit.plain(absence.path), "detail": detail})


def _conflict(conflict: Conflict, visit: Visit) -> Conflict:
    """Two values of one field: of an identity, where the path ends in one."""
    kind = _BY_NAME.get(conflict.path.rpartition(".")[2])

    def told(text: str) -> str:
        return visit.prose(text) if kind is None else visit.identity(kind, text)

    return conflict.model_copy(
        update={
            "path": _path(conflict.path, visit)[: TEXT.max_length],
            "said": tuple((_path(who, visit), told(what)) for who, what in conflict.said),
            "taken": conflict.taken and told(conflict.taken),
        }
    )


def _path(text: str, visit: Visit) -> str:
    """A path that may begin with a node or switch of the map."""
    match = _ELEMENT.fullmatch(text)
    if match is None:
        return visit.prose(text)
    kind = Kind.HOST if match["list"] == "nodes" else Kind.SWITCH
    return f"{match['list']}[{visit.identity(kind, match['name'])}]{visit.plain(match['rest'])}"


def _cable_end(end: CableEnd, visit: Visit) -> CableEnd:
    kind = Kind.SWITCH if end.nic is None else Kind.HOST
    device = visit.identity(kind, end.device)
    return end if device == end.device else end.model_copy(update={"device": device})


_SPECIAL: Final[Mapping[type[BaseModel], Callable[[Any, Visit], BaseModel]]] = {
    NodeReading: rewritten_reading,
    Absence: _absence,
    Conflict: _conflict,
    CableEnd: _cable_end,
}
