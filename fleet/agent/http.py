"""HTTP: the head of a request to a value, and a reply to bytes. No socket, no page."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

HEAD_END: Final = b"\r\n\r\n"
LARGEST_HEAD_BYTES: Final = 8192

REASONS: Final[Mapping[int, str]] = {
    200: "OK",
    304: "Not Modified",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}
_TOKEN: Final = frozenset(
    "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks; names of headers in small letters, one that stands twice joined."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    version: str = "HTTP/1.1"

    @property
    def stays(self) -> bool:
        """Whether the client wants to ask again on this connection."""
        wishes = _items(self.headers.get("connection", ""))
        return "close" not in wishes if self.version == "HTTP/1.1" else "keep-alive" in wishes

    @property
    def takes_gzip(self) -> bool:
        """Whether the client can unpack gzip."""
        for item in _items(self.headers.get("accept-encoding", "")):
            name, _, quality = item.partition(";")
            if name.strip() == "gzip":
                return quality.replace(" ", "").rstrip("0") not in ("q=", "q=0.")
        return False

    def knows(self, tag: str) -> bool:
        """Whether the client has the content of this tag, packed or not."""
        known = [item.removeprefix("w/") for item in _items(self.headers.get("if-none-match", ""))]
        return "*" in known or f'"{tag}"' in known or f'"{tag}-gzip"' in known


@dataclass(frozen=True, slots=True)
class Reply:
    """Bytes for a client: head, body, and whether the connection ends with them."""

    status: int
    head: bytes
    body: bytes = b""
    ends: bool = False


def request_from_head(head: bytes) -> Request | int:
    """A request from its head without the empty line, or the status that refuses it.

    What announces a body is refused: nothing here takes one.
    """
    first, *rest = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not _TOKEN.issuperset(words[0]) or not words[0]:
        return 400
    method, target, version = words
    if version not in ("HTTP/1.0", "HTTP/1.1"):
        return 505 if version.startswith("HTTP/") else 400
    headers = _headers(rest)
    if headers is None or not target.startswith("/"):
        return 400
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        return 400 if method in ("GET", "HEAD") else 405
    return Request(method, target.partition("?")[0], headers, version)


def reply_from_parts(
    status: int,
    body: bytes,
    headers: Mapping[str, str],
    *,
    is_head: bool = False,
    ends: bool = False,
) -> Reply:
    """A reply; to HEAD it has the headers of the body and not the body."""
    lines = [f"HTTP/1.1 {status} {REASONS[status]}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if status != 304:
        lines.append(f"Content-Length: {len(body)}")
    lines.append(f"Connection: {'close' if ends else 'keep-alive'}")
    head = "\r\n".join(lines).encode("latin-1") + HEAD_END
    return Reply(status, head, b"" if is_head or status == 304 else body, ends)


def _headers(lines: list[str]) -> Mapping[str, str] | None:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or not _TOKEN.issuperset(name) or "\n" in value or "\0" in value:
            return None
        key, value = name.lower(), value.strip(" \t")
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    return headers


def _items(text: str) -> list[str]:
    return [item.strip().lower() for item in text.split(",") if item.strip()]
