"""Shell: what ssh and srun have in common: a command of the user's own runs the probe on a node.

No shell runs here; a host is one word of the command. Why there is no answer is told from the
command's exit status and its words, which are matched against a table.
"""

import os
import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from fleet.errors import FleetError
from fleet.gather.answer import document_from_output, is_whole
from fleet.gather.outcome import (
    Answer,
    AnswerError,
    FailureReason,
    HostFailure,
    plain_detail,
    timed_out,
    too_large,
)
from fleet.gather.processes import Ending, Ran, run
from fleet.gather.program import program_text
from fleet.reading import LARGEST_READING_BYTES

Signs = tuple[tuple[re.Pattern[str], FailureReason], ...]
"""Words of a command and the reason they stand for; the group of a pattern is the detail."""

_NO_QUESTIONS: Final = {"SSH_ASKPASS_REQUIRE": "never"}


def signs(*table: tuple[str, FailureReason]) -> Signs:
    """A table of words, whatever their case; the first that is found counts."""
    return tuple((re.compile(pattern, re.IGNORECASE), reason) for pattern, reason in table)


def program_from_text(text: str) -> tuple[str, ...]:
    """A command line from text such as ``ssh -F file``, split into words as a shell does.

    Raises:
        FleetError: there is no such program.
    """
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise FleetError(f"{text!r} cannot be split ({error})", remedy="close the quote") from None
    if not words or shutil.which(words[0]) is None:
        raise FleetError(
            f"{words[0] if words else text!r} is no program here",
            remedy="install it, or give its path",
        )
    return words


async def ask_by_command(
    host: str,
    argv: Sequence[str],
    *,
    mark: str,
    deadline_s: float,
    told_by: Callable[[Ran], AnswerError | None],
) -> Answer | HostFailure:
    """Run a command that runs the probe; ``told_by`` reads the command's own words. [s]"""
    try:
        ran = await run(
            argv,
            stdin=program_text().encode() + b"\n",
            deadline_s=deadline_s,
            limit_bytes=LARGEST_READING_BYTES,
            is_whole=partial(is_whole, mark=mark),
            environment={**os.environ, **_NO_QUESTIONS},
        )
    except OSError as error:
        return HostFailure(host, FailureReason.NOT_STARTED, f"{argv[0]}: {error.strerror}")
    return Answer(host, partial(_document, ran, mark, deadline_s, told_by))


def _document(
    ran: Ran, mark: str, deadline_s: float, told_by: Callable[[Ran], AnswerError | None]
) -> bytes:
    """The reading that was printed; where there is none, the best reason why."""
    try:
        return document_from_output(ran.stdout, mark=mark, waited_s=deadline_s)
    except AnswerError as error:
        raise _why(ran, deadline_s, told_by, error) from None


def _why(
    ran: Ran,
    deadline_s: float,
    told_by: Callable[[Ran], AnswerError | None],
    otherwise: AnswerError,
) -> AnswerError:
    if ran.ending is Ending.TOO_LARGE:
        return too_large()
    told = told_by(ran)
    if told is not None:
        return told
    if ran.ending is Ending.TIMED_OUT:
        return timed_out(deadline_s)
    if otherwise.reason is FailureReason.NO_ANSWER and ran.exit_code:
        return AnswerError(FailureReason.DIED, f"exit status {ran.exit_code}{_last_line(ran)}")
    if otherwise.reason is FailureReason.DIED:
        return AnswerError(FailureReason.DIED, f"{otherwise.detail}{_last_line(ran)}")
    return otherwise


def reason_from_words(ran: Ran, table: Signs) -> AnswerError | None:
    """The first reason of a table that stands in a command's words."""
    words = ran.stderr.decode("utf-8", "replace")
    for pattern, reason in table:
        match = pattern.search(words)
        if match is not None:
            return AnswerError(reason, match[1].strip().rstrip("."))
    return None


def _last_line(ran: Ran) -> str:
    lines = ran.stderr.decode("utf-8", "replace").strip().splitlines()
    return f": {plain_detail(lines[-1])}" if lines else ""
