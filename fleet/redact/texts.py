"""Texts: where identities stand in what a probe reads: files, answers, outputs of commands."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from xml.sax.saxutils import escape, unescape

from fleet.fields import TEXT
from fleet.reading import Answer, CommandOutput, NodeReading, Stop
from fleet.redact.pseudonyms import Kind
from fleet.redact.sweep import Visit

Change = Callable[[str], str]

_FILES: Final = (
    (
        re.compile(r"(^|/)((board|chassis|product)_(serial|asset_tag)|serial(_number)?)$"),
        Kind.SERIAL,
    ),
    (re.compile(r"(^|/)(product_uuid|machine-id)$"), Kind.UUID),
    (re.compile(r"(^|/)(node|port|sys_image)_guid$"), Kind.GUID),
    (re.compile(r"(^|/)hostname$"), Kind.HOST),
    (re.compile(r"(^|/)proc/[0-9]+/(comm|cmdline)$"), Kind.PROCESS),
)
_PLAIN_FILES: Final = re.compile(
    r"(^|/)(product_name|product_family|sys_vendor|board_name|hca_type|fw_ver|board_id|"
    r"version|modalias|uevent|modules|cpuinfo|state|phys_state|rate|link_layer|numa_node)$"
)
_NODE_DESCRIPTION: Final = re.compile(r"(^|/)node_desc$")

_ELEMENTS: Final[Mapping[str, Kind]] = {
    "serial": Kind.SERIAL,
    "chassis_serial_number": Kind.SERIAL,
    "uuid": Kind.UUID,
    "vgpu_uuid": Kind.UUID,
    "clusterUuid": Kind.UUID,
    "gpu_fabric_guid": Kind.GUID,
    "pdi": Kind.GUID,
    "process_name": Kind.PROCESS,
    "vm_name": Kind.HOST,
    "user": Kind.USER,
    "username": Kind.USER,
}
_LABELS: Final[Mapping[str, Kind]] = {
    "Serial Number": Kind.SERIAL,
    "Chassis Serial Number": Kind.SERIAL,
    "GPU UUID": Kind.UUID,
    "ClusterUUID": Kind.UUID,
    "GPU Fabric GUID": Kind.GUID,
    "GPU PDI": Kind.GUID,
    "Process Name": Kind.PROCESS,
    "Name": Kind.PROCESS,
    "VM Name": Kind.HOST,
}
_PLAIN_ELEMENT: Final = re.compile(r"product_\w+|\w*(version|part_number|_id|reason|state)")
_PLAIN_LABEL: Final = re.compile(r"Product \w+|.*(Version|Part Number)")
_XML_TEXT: Final = re.compile(
    r"(?P<note><!--[^<]*)|(?P<tag><(?P<name>[\w.-]+)(?:\s[^<>]*)?>)(?P<text>[^<]+)"
)
_LINE: Final = re.compile(r"^(?P<head>(?P<label>[^:\n]{1,100}):)(?P<text>[^\n]*)", re.MULTILINE)

_PLAIN_CALLS: Final = frozenset(
    {
        *("nvmlDeviceGetName", "nvmlDeviceGetBoardPartNumber", "nvmlDeviceGetVbiosVersion"),
        *("nvmlSystemGetDriverVersion", "nvmlSystemGetNVMLVersion", "nvmlDeviceGetPciInfo"),
        "nvmlDeviceGetNvLinkRemotePciInfo",
    }
)
_CALLS: Final[Mapping[str, Kind]] = {
    "nvmlDeviceGetUUID": Kind.UUID,
    "nvmlDeviceGetSerial": Kind.SERIAL,
    "nvmlDeviceGetHostname": Kind.HOST,
    "nvmlSystemGetProcessName": Kind.PROCESS,
    "nvmlDeviceGetPdi": Kind.GUID,
}
_KEYS: Final[Mapping[str, Kind]] = {"uuid": Kind.UUID, "serial": Kind.SERIAL}
_KEYS_OF_PROCESS: Final[Mapping[str, Kind]] = {"name": Kind.PROCESS, "user": Kind.USER}

_LONGEST_ODD: Final = 4096
_UUID_DIGITS: Final = 32
_ID_DIGITS: Final = 32
"""Sixteen bytes: the GUID and the chassis serial of a platform struct have as many each."""


def rewritten_reading(reading: NodeReading, visit: Visit) -> NodeReading:
    """A reading with each of its texts as the visit gives it."""
    plain = visit.plain
    return reading.model_copy(
        update={
            "host": visit.identity(Kind.HOST, reading.host),
            "answers": {plain(c): _answer(c, a, visit) for c, a in reading.answers.items()},
            "files": {plain(p): file_text(p, t, visit) for p, t in reading.files.items()},
            "links": {plain(path): plain(target) for path, target in reading.links.items()},
            "unreadable": {plain(path): why for path, why in reading.unreadable.items()},
            "outputs": {plain(c): _output(c, o, visit) for c, o in reading.outputs.items()},
            "stops": tuple(_stop(stop, visit) for stop in reading.stops),
        }
    )


def _stop(stop: Stop, visit: Visit) -> Stop:
    detail = stop.detail and visit.prose(stop.detail)[: TEXT.max_length]
    chapter, at = visit.plain(stop.chapter), visit.plain(stop.at)
    return stop.model_copy(update={"chapter": chapter, "at": at, "detail": detail})


def file_text(path: str, text: str, visit: Visit) -> str:
    """A file's text; its path says whether it is an identity as a whole."""
    kind = next((kind for pattern, kind in _FILES if pattern.search(path)), None)
    if kind is not None:
        return _within_blanks(text, lambda core: visit.identity(kind, core))
    if _NODE_DESCRIPTION.search(path):
        return _within_blanks(text, lambda core: _node_description(core, visit))
    return visit.plain(text) if _PLAIN_FILES.search(path) else visit.value(text)


def _within_blanks(text: str, change: Change) -> str:
    core = text.strip("\0 \t\r\n")
    if not core:
        return text
    start = text.index(core)
    return text[:start] + change(core) + text[start + len(core) :]


def _node_description(text: str, visit: Visit) -> str:
    """Usually the host and the adapter; from the factory, the product."""
    match = re.fullmatch(r"(?P<host>[\w.-]+) (?P<device>[\w.-]*[0-9])", text)
    if match is None:
        return visit.value(text)
    return f"{visit.identity(Kind.HOST, match['host'])} {match['device']}"


def _output(command: str, output: CommandOutput, visit: Visit) -> CommandOutput:
    text = output.text
    if "<nvidia_smi_log" in text:
        new = _in_xml(text, visit)
    elif " topo" in command:  # a matrix of short words, none of them a name
        new = visit.plain(text)
    else:
        new = _replaced(_LINE, text, lambda match: _line(match, visit), visit.value)
    return output.model_copy(update={"text": new})


def _replaced(
    pattern: re.Pattern[str], text: str, of_match: Callable[[re.Match[str]], str], of_rest: Change
) -> str:
    parts, end = [], 0
    for match in pattern.finditer(text):
        parts += [of_rest(text[end : match.start()]), of_match(match)]
        end = match.end()
    return "".join((*parts, of_rest(text[end:])))


def _in_xml(text: str, visit: Visit) -> str:
    return _replaced(_XML_TEXT, text, lambda match: _element(match, visit), visit.plain)


def _element(match: re.Match[str], visit: Visit) -> str:
    if match["note"]:
        return visit.value(match["note"])
    kind = _ELEMENTS.get(match["name"])
    if kind is None:
        change = visit.plain if _PLAIN_ELEMENT.fullmatch(match["name"]) else visit.value
        return visit.plain(match["tag"]) + change(match["text"])

    def change_core(core: str) -> str:
        name = unescape(core)
        new = visit.identity(kind, name)
        return core if new == name else escape(new)

    return visit.plain(match["tag"]) + _within_blanks(match["text"], change_core)


def _line(match: re.Match[str], visit: Visit) -> str:
    label = match["label"].strip()
    kind = _LABELS.get(label)
    if kind is not None:
        new = _within_blanks(match["text"], lambda core: visit.identity(kind, core))
    elif _PLAIN_LABEL.fullmatch(label):
        new = visit.plain(match["text"])
    else:
        new = visit.value(match["text"])
    return visit.value(match["head"]) + new


def _answer(call: str, answer: Answer, visit: Visit) -> Answer:
    name = call.partition("(")[0]
    update: dict[str, Any] = {"value": _answer_value(name, answer.value, visit)}
    if answer.hex is not None:
        update["hex"] = _undecoded_bytes(name, answer.hex, visit)
    if answer.odd is not None:
        update["odd"] = visit.prose(answer.odd)[:_LONGEST_ODD]
    return answer.model_copy(update=update)


def _undecoded_bytes(name: str, digits: str, visit: Visit) -> str:
    """Bytes of a text that does not decode: an identity as a whole where the call asks for one."""
    return _serial_bytes(digits, visit) if name in _CALLS else visit.plain(digits)


def _answer_value(name: str, value: Any, visit: Visit) -> Any:
    match value:
        case str() if name in _CALLS:
            return visit.identity(_CALLS[name], value)
        case str():
            return visit.plain(value) if name in _PLAIN_CALLS else visit.value(value)
        case int() if name in _CALLS and not isinstance(value, bool):
            return int(visit.identity(Kind.GUID, f"{value % 2**64:016x}"), 16)
        case dict() if name.startswith(("nvmlDeviceGetGpuFabricInfo", "nvmlDeviceGetPlatformInfo")):
            return {key: _struct(name, key, part, visit) for key, part in value.items()}
        case dict():
            kinds = _KEYS_OF_PROCESS if name == "process" else _KEYS
            return {key: _member(name, kinds.get(key), p, visit) for key, p in value.items()}
        case list() | tuple():
            return [_answer_value(name, part, visit) for part in value]
    return value


def _member(name: str, kind: Kind | None, part: Any, visit: Visit) -> Any:
    if kind is not None and isinstance(part, str):
        return visit.identity(kind, part)
    return _answer_value(name, part, visit)


def _struct(name: str, key: str, part: Any, visit: Visit) -> Any:
    """The bytes of a driver's struct, after its version word."""
    if key not in ("hex", "raw") or not isinstance(part, str):
        return part
    if not re.fullmatch("[0-9a-f]*", part):
        return visit.value(part)
    if name.startswith("nvmlDeviceGetGpuFabricInfo"):
        head = part[:_UUID_DIGITS]
        is_whole = len(head) == _UUID_DIGITS
        return (visit.identity(Kind.UUID, head) if is_whole else head) + part[_UUID_DIGITS:]
    guid, rest = part[:_ID_DIGITS], part[_ID_DIGITS:]
    serial, rest = rest[:_ID_DIGITS], rest[_ID_DIGITS:]
    halves = (guid[:16], guid[16:])
    told = "".join(visit.identity(Kind.GUID, half) if len(half) == 16 else half for half in halves)
    return told + _serial_bytes(serial, visit) + rest


def _serial_bytes(digits: str, visit: Visit) -> str:
    """The bytes of a serial, filled up with zero bytes where it stands in a struct."""
    even = len(digits) // 2 * 2
    text = bytes.fromhex(digits[:even]).decode("latin-1")
    new = _within_blanks(text, lambda core: visit.identity(Kind.SERIAL, core))
    return new.encode("latin-1").hex() + digits[even:]
