"""Answers: what a request gets, from what the board shows. A client sees no more than it may."""

import gzip
from collections.abc import Callable, Mapping
from typing import Final

from fleet.agent.access import Access
from fleet.agent.board import Board, Edition
from fleet.agent.http import Reply, Request, reply_from_parts, request_from_head
from fleet.agent.log import Log
from fleet.agent.metrics import CONTENT_TYPE, page_from_samples
from fleet.agent.metrics_agent import agent_samples

TEXT: Final = {"Content-Type": "text/plain; charset=utf-8"}
JSON: Final = {"Content-Type": "application/json"}
METRICS: Final = {"Content-Type": CONTENT_TYPE, "Vary": "Accept-Encoding"}
_QUICK: Final = 1
"""Metrics are packed at each look; more effort saves little."""

_REFUSALS: Final = {
    400: "this is no request for a page of the agent",
    401: "give the agent's token: Authorization: Bearer TOKEN",
    404: "the agent serves /snapshot, /metrics, /-/ready and /-/live",
    405: "the agent only answers GET and HEAD",
    431: "the request is too long",
    500: "the agent failed to answer this; see its log",
    505: "the agent speaks HTTP/1.1",
}


class Answers:
    """Answers requests from what the board shows; ``access`` may be replaced while it serves.

    ``/-/live`` and ``/-/ready`` are open to anybody, because a kubelet has no token to show; they
    tell nothing of the node.
    """

    def __init__(
        self,
        board: Board,
        access: Access,
        *,
        stale_after_s: float,
        clock: Callable[[], float],
        log: Log,
    ) -> None:
        self._log = log
        self.access = access
        self._board = board
        self._stale_after_s = stale_after_s
        self._clock = clock
        self._open = {"/-/live": self._live, "/-/ready": self._ready}
        self._guarded = {"/snapshot": self._snapshot, "/metrics": self._metrics}

    def answer(self, head: bytes) -> Reply:
        """The reply to a request's head."""
        try:
            request = request_from_head(head)
            reply = self._refused(request) if isinstance(request, int) else self._told(request)
        except Exception as error:  # our own fault, which no client may see
            self._log.trouble("answer", f"failed: {type(error).__name__}: {error}")
            reply = self._refused(500)
        self._board.answered[reply.status] += 1
        return reply

    def refuse(self, status: int) -> Reply:
        """The reply to what is no request; the connection ends with it."""
        self._board.answered[status] += 1
        return self._refused(status)

    def _refused(self, status: int) -> Reply:
        more = {"Allow": "GET, HEAD"} if status == 405 else {}
        return _text(status, _REFUSALS[status], more, ends=True)

    def _told(self, request: Request) -> Reply:
        if request.method not in ("GET", "HEAD"):
            return self._refused(405)
        answer = self._open.get(request.path)
        if answer is None:
            if not self.access.allows(request.headers.get("authorization")):
                return self._asking(request, 401, {"WWW-Authenticate": 'Bearer realm="fleetmap"'})
            answer = self._guarded.get(request.path)
        return self._asking(request, 404) if answer is None else answer(request)

    def _asking(
        self, request: Request, status: int, headers: Mapping[str, str] | None = None
    ) -> Reply:
        return _page(
            request, status, f"{_REFUSALS[status]}\n".encode(), {**TEXT, **(headers or {})}
        )

    def _live(self, request: Request) -> Reply:
        return _page(request, 200, b"live\n", TEXT)

    def _ready(self, request: Request) -> Reply:
        why = self._why_not_ready(self._board.edition)
        return _page(request, 503 if why else 200, f"{why or 'ready'}\n".encode(), TEXT)

    def _why_not_ready(self, edition: Edition | None) -> str | None:
        if edition is None:
            return f"not ready: no good reading yet, {self._board.readings.failed} failed"
        if self._is_fresh(edition):
            return None
        return (
            f"not ready: the last good reading is {self._age_s(edition):.0f} s old, "
            f"more than {self._stale_after_s:g} s"
        )

    def _is_fresh(self, edition: Edition) -> bool:
        return edition.is_fresh(now_s=self._clock(), stale_after_s=self._stale_after_s)

    def _age_s(self, edition: Edition) -> float:
        return max(self._clock() - edition.read_at_s, 0.0)

    def _snapshot(self, request: Request) -> Reply:
        edition = self._board.edition
        if edition is None:
            return _page(request, 503, f"{self._why_not_ready(None)}\n".encode(), TEXT)
        page, packs = edition.snapshot, request.takes_gzip
        headers = {
            **JSON,
            "ETag": f'"{page.tag}-gzip"' if packs else f'"{page.tag}"',
            "Age": f"{self._age_s(edition):.0f}",
            "Cache-Control": "no-cache",
            "Vary": "Accept-Encoding",
        }
        if request.knows(page.tag):
            return _page(request, 304, b"", headers)
        if packs:
            return _page(request, 200, page.packed, {**headers, "Content-Encoding": "gzip"})
        return _page(request, 200, page.content, headers)

    def _metrics(self, request: Request) -> Reply:
        """The agent's own numbers, and the node's while fresh: old ones are not its state."""
        edition = self._board.edition
        fresh = edition is not None and self._is_fresh(edition)
        body = page_from_samples(agent_samples(self._board, now_s=self._clock(), is_fresh=fresh))
        if edition is not None and fresh:
            body += edition.metrics
        if not request.takes_gzip:
            return _page(request, 200, body, METRICS)
        packed = gzip.compress(body, _QUICK, mtime=0)
        return _page(request, 200, packed, {**METRICS, "Content-Encoding": "gzip"})


def _page(request: Request, status: int, body: bytes, headers: Mapping[str, str]) -> Reply:
    return reply_from_parts(
        status, body, headers, is_head=request.method == "HEAD", ends=not request.stays
    )


def _text(status: int, text: str, headers: Mapping[str, str], *, ends: bool) -> Reply:
    return reply_from_parts(status, f"{text}\n".encode(), {**TEXT, **headers}, ends=ends)
