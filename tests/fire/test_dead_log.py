"""A log that nobody reads: the server serves on, obeys, and counts what it could not log."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fire.server import free_port

LINES = 20_000


def connect(port: int) -> socket.socket:
    """Connect, as soon as the server listens."""
    end = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=20)
        except ConnectionRefusedError:
            assert time.monotonic() < end, "no server within 20 s"
            time.sleep(0.05)


@pytest.mark.parametrize("in_time", [False, True], ids=["never read", "read in the end"])
def test_clients_are_served_and_signals_obeyed(in_time: bool) -> None:
    """The pipe is full after some hundred lines; 20,000 are answered, and the rest is counted."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("trio-echo")), "serve", "--host", "127.0.0.1"]
    with subprocess.Popen(
        [*command, "--log-lines", str(port), "one"], stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        with connect(port) as client, client.makefile("rb") as answers:
            for number in range(LINES // 100):
                client.sendall(b"line %d\n" % number * 100)
                for _ in range(100):
                    assert answers.readline() == b"one line %d\n" % number
        log = b""
        if in_time:
            while b"log lines lost" not in log:
                log += os.read(process.stderr.fileno(), 65_536)
        process.send_signal(signal.SIGTERM)
        # If the log is read only after this, a server that waits for it would wait for ever.
        assert process.wait(10) == 0
        log += process.stderr.read()
    written = len(re.findall(rb" (?:request|response): ", log))
    lost = sum(map(int, re.findall(rb"log lines lost count=(\d+)", log)))
    assert written < 2 * LINES
    if in_time:
        assert written + lost == 2 * LINES
