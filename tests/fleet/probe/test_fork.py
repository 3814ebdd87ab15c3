"""A forked child of the probe: real processes below an interpreter of their own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
PARENT = """
import json, os, sys, time
from fleet.probe.fork import Forked

def ended(child):
    until = time.monotonic() + 20
    while child.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    return child.poll()

def told(run):
    child = Forked(run)
    text = child.stdout.read().decode()
    return text, ended(child)

"""


def parent(body: str, **how: Any) -> Any:
    """What a program prints that forks children, as JSON."""
    command = [sys.executable, "-c", PARENT + body]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, **how
    )
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_a_child_reads_what_its_parent_writes_and_ends_with_it() -> None:
    body = """
def echo():
    for line in sys.stdin:
        os.write(1, line.upper().encode())
child = Forked(echo)
child.stdin.write(b"one\\n"); child.stdin.flush()
heard = child.stdout.read(4).decode()
before = child.poll()
child.stdin.close()
print(json.dumps([heard, before, ended(child)]))
"""
    assert parent(body, stdin=subprocess.DEVNULL) == ["ONE\n", None, 0]


@pytest.mark.parametrize(
    ("run", "status"),
    [
        ("lambda: None", 0),
        ("lambda: 1 / 0", 1),
        ("lambda: sys.exit(0)", 1),
        ("lambda: os._exit(7)", 7),
        ("lambda: os.kill(os.getpid(), 9)", -9),
    ],
)
def test_how_it_ended_is_told_as_of_any_process(run: str, status: int) -> None:
    assert parent(f"print(json.dumps(told({run})))") == ["", status]


def test_a_killed_child_is_gone_and_killing_it_again_is_no_error() -> None:
    body = """
child = Forked(lambda: time.sleep(600))
child.kill()
status = ended(child)
child.kill()
print(json.dumps(status))
"""
    assert parent(body) == -9


def test_it_has_a_session_of_its_own_and_nothing_open_that_is_its_parents() -> None:
    body = """
kept = os.open("/dev/zero", os.O_RDONLY)
os.set_inheritable(kept, True)
first = Forked(sys.stdin.read)
def tell():
    links = [os.readlink("/proc/self/fd/%s" % name) for name in "012"]
    count = len(os.listdir("/proc/self/fd")) - 1
    kinds = [link.partition(":")[0] for link in links]
    os.write(1, json.dumps([os.getsid(0) == os.getpid(), kinds, count]).encode())
print(told(tell)[0])
"""
    own_session, kinds, count = parent(body, stdin=subprocess.PIPE)
    assert own_session
    assert kinds == ["pipe", "pipe", "/dev/null"]
    assert count == 3


def test_nothing_of_the_parents_is_printed_a_second_time() -> None:
    body = """
sys.stdout.write("[")
told(lambda: None)
print("1]")
"""
    assert parent(body) == [1]
