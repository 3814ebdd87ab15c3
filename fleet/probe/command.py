"""Another command's output, bounded in time and size; a command that hangs is never waited for."""

import os
import select
import signal
import subprocess
import time
from typing import Any, Dict, List

LARGEST_OUTPUT_BYTES = 16 * 2**20


def output_of(command: List[str], deadline_s: float) -> Dict[str, Any]:
    """``{"text": stdout, "exit_code": N}``; the code is None for one stopped at its deadline."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        return {"text": "", "exit_code": 126 if error.errno == 13 else 127}
    until = time.monotonic() + deadline_s
    text = _text_until(process, until)
    while process.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    return {"text": text, "exit_code": process.poll()}


def _text_until(process: Any, until: float) -> str:
    output = process.stdout.fileno()
    poll = select.poll()
    poll.register(output, select.POLLIN | select.POLLHUP)
    parts, size = [], 0
    while size < LARGEST_OUTPUT_BYTES:
        left_s = until - time.monotonic()
        if left_s <= 0 or not poll.poll(int(left_s * 1000) + 1):
            break
        data = os.read(output, 1 << 16)
        if not data:
            break
        parts.append(data)
        size += len(data)
    process.stdout.close()
    return b"".join(parts).decode("utf-8", "replace")
