"""The server as a container's first process, which gets no signal that has no handler yet."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

TRIO_ECHO = Path(sys.executable).with_name("trio-echo")
TIMES = int(os.environ.get("TRIO_ECHO_TIMES", "8"))
CONTAINERFILE = Path(__file__).parents[2] / "container" / "Containerfile"


def entry_point() -> list[str]:
    """The image's entry point, with this environment's command in it."""
    found = re.search(r"^ENTRYPOINT (\[.*\])$", CONTAINERFILE.read_text("utf-8"), re.MULTILINE)
    assert found is not None
    words = found[1].strip("[]").replace('"', "").split(", ")
    return [str(TRIO_ECHO) if word == "trio-echo" else word for word in words]


def obeys(delay: float) -> bool:
    """Start a server as PID 1, send SIGTERM so many seconds later; tell whether it ends well."""
    launcher = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    command = [*launcher, *entry_point(), "--host", "127.0.0.1", "0", "one"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            first = first_process(process.pid)
            time.sleep(delay)
            os.kill(first, signal.SIGTERM)
            return process.wait(10) == 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            with suppress(ProcessLookupError):
                process.kill()


def first_process(parent: int) -> int:
    """Wait until unshare's child is no longer unshare but runs the entry point's last step."""
    children = Path(f"/proc/{parent}/task/{parent}/children")
    end = time.monotonic() + 10
    while time.monotonic() < end:
        for child in children.read_text("ascii").split():
            words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            if str(TRIO_ECHO).encode() in words[:2]:
                return int(child)
    pytest.fail("no server within 10 s")


@pytest.mark.parametrize("milliseconds", [0, 10, 50, 200])
def test_the_first_process_obeys_from_its_first_millisecond(milliseconds: int) -> None:
    """However soon SIGTERM comes: it ends, with 0, and is not left to run for ever."""
    assert all(obeys(milliseconds / 1000) for _ in range(TIMES))
