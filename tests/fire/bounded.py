"""Memory under fire: clients that hold all they can, at a server in a cgroup of 256 MiB.

Run it as root, with ``python -m fire.bounded`` and ``PYTHONPATH=tests``. It starts
``trio-echo serve`` as the manifests do, in a memory cgroup of its own (version 2 or 1,
whichever this machine has), for each kind of client anew. Beside them, polite clients
are served all the time; it exits 1 if one of them is not, if the server dies, or if
the memory does not come back.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT: Final = 256 << 20
CLIENTS: Final = 1000
POLITE: Final = 10
SECONDS: Final = 8.0
SERVE: Final = Path(sys.executable).with_name("trio-echo")

HOGS: Final = {
    "newlines": (b"\n" * 65_536, True),
    "long lines": (b"x" * 65_535 + b"\n", True),
    "half lines": (b"x" * 65_536, False),
}
"""What a client sends, and whether again and again; none of them reads."""

SCENARIOS: Final = {
    "1,000 that send newlines and never read": ["newlines"],
    "1,000 that send lines of 64 KiB and never read": ["long lines"],
    "1,000 with half a line of 64 KiB": ["half lines"],
    "a mix of 1,000": ["newlines", "long lines", "half lines"],
}


@dataclass
class Cgroup:
    """A memory cgroup of either version."""

    folder: Path
    unified: bool

    @classmethod
    def make(cls) -> Cgroup:
        """Make one under this process's own."""
        for line in Path("/proc/self/cgroup").read_text("utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if "memory" in controllers.split(","):
                top, unified = Path("/sys/fs/cgroup/memory"), False
                break
        else:
            top, unified = Path("/sys/fs/cgroup"), True
            path = line.rpartition(":")[2]
        folder = top / path.lstrip("/") / f"trio-echo-{os.getpid()}"
        folder.mkdir()
        group = cls(folder, unified)
        group.write("memory.max" if unified else "memory.limit_in_bytes", LIMIT)
        if not unified:
            # Version 1 counts sockets only where they have a limit; this one is no bound.
            group.write("memory.kmem.tcp.limit_in_bytes", 1 << 40)
        return group

    def write(self, name: str, value: int) -> None:
        """Write one of its files."""
        (self.folder / name).write_text(f"{value}")

    def read(self, name: str) -> int:
        """Read one of its files."""
        return int((self.folder / name).read_text())

    @property
    def used(self) -> int:
        """Bytes in use."""
        return self.read("memory.current" if self.unified else "memory.usage_in_bytes")

    @property
    def sockets(self) -> int:
        """Bytes of the kernel's socket buffers; version 1 does not count them to the limit."""
        if not self.unified:
            return self.read("memory.kmem.tcp.usage_in_bytes")
        lines = (self.folder / "memory.stat").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("sock "))

    @property
    def deaths(self) -> int:
        """How many processes the kernel killed in it for want of memory."""
        name = "memory.events" if self.unified else "memory.oom_control"
        for line in (self.folder / name).read_text().splitlines():
            word, _, value = line.partition(" ")
            if word == "oom_kill":
                return int(value)
        return 0


@dataclass
class Polite:
    """Clients that ask, read and go on, with how long they waited."""

    port: int
    waits: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    over: Event = field(default_factory=Event)

    def run(self) -> None:
        """Ask on an open connection and on a new one, in turn."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 10) as stay:
                while not self.over.wait(0.05):
                    self._ask(stay)
                    with socket.create_connection(("127.0.0.1", self.port), 10) as fresh:
                        self._ask(fresh)
        except OSError as error:
            self.failures.append(f"{error}")

    def _ask(self, client: socket.socket) -> None:
        began = time.perf_counter()
        client.sendall(b"please\n")
        answer = b""
        while not answer.endswith(b"\n"):
            part = client.recv(100)
            if not part:
                raise ConnectionError("ended amid an answer")
            answer += part
        if answer != b"one please\n":
            raise ConnectionError(f"answered {answer!r}")
        self.waits.append(time.perf_counter() - began)


def hog(port: int, kind: str, count: int) -> None:
    """Hold all that can be held on a number of connections, and begin anew when one is ended."""
    payload, again = HOGS[kind]
    selector = selectors.DefaultSelector()

    def connect() -> None:
        client = socket.socket()
        # The less its own kernel takes, the more the server has to hold.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(60)
        client.connect(("127.0.0.1", port))
        client.setblocking(False)
        selector.register(client, selectors.EVENT_WRITE | selectors.EVENT_READ)

    for _ in range(count):
        connect()
    while True:
        for key, events in selector.select(1):
            client = cast("socket.socket", key.fileobj)
            try:
                if events & selectors.EVENT_WRITE:
                    client.send(payload)
                    if not again:
                        selector.modify(client, selectors.EVENT_READ)
                elif client.recv(1, socket.MSG_PEEK):
                    # It has answers, and does not read them: to be woken by its end only.
                    selector.modify(client, selectors.EVENT_WRITE if again else 0)
                else:
                    raise ConnectionError
            except BlockingIOError:
                continue
            except OSError:
                selector.unregister(client)
                client.close()
                with suppress(OSError):
                    connect()


@contextmanager
def serving(group: Cgroup) -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
    """Run a server in the cgroup; yield it with its port and its admin port."""
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports.append(free.getsockname()[1])
    options = ["--drain-timeout", "10", "--log-format", "json", "--admin-port", str(ports[1])]
    command = f'echo $$ > {group.folder}/cgroup.procs; exec "$@"'
    server = subprocess.Popen(
        ["/bin/sh", "-c", command, "sh", SERVE, "serve", *options, str(ports[0]), "one"],
        stderr=subprocess.DEVNULL if "-v" not in sys.argv else None,
    )
    try:
        for _ in range(200):
            with suppress(OSError), socket.create_connection(("127.0.0.1", ports[0]), 1):
                break
            time.sleep(0.05)
        yield server, *ports
    finally:
        server.kill()
        server.wait()


def ended(admin: int) -> int:
    """How many connections the server ended to stay within the limit."""
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=10) as page:
        for line in page.read().decode().splitlines():
            if line.startswith('trio_echo_connections_closed_total{reason="memory"}'):
                return int(float(line.split()[-1]))
    raise LookupError("memory")


def resident(pid: int) -> int:
    """Resident memory of a process, in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def run(name: str, kinds: list[str]) -> bool:
    """Run one scenario, print its row, and tell whether all was well."""
    group = Cgroup.make()
    try:
        with serving(group) as (server, port, admin):
            before = resident(server.pid)
            polite = Polite(port)
            threads = [Thread(target=polite.run) for _ in range(POLITE)]
            for thread in threads:
                thread.start()
            count = CLIENTS // len(kinds)
            hogs = [
                subprocess.Popen([sys.executable, __file__, "hog", str(port), kind, str(count)])
                for kind in kinds
            ]
            peak = sockets = 0
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                peak, sockets = max(peak, group.used), max(sockets, group.sockets)
                time.sleep(0.002)
            for each in hogs:
                each.kill()
            for each in hogs:
                each.wait()
            polite.over.set()
            for thread in threads:
                thread.join()
            time.sleep(2)
            alive = server.poll() is None
            after = resident(server.pid) if alive else 0
            count = ended(admin) if alive else -1
            server.send_signal(signal.SIGTERM)
            waits = sorted(polite.waits) or [float("nan")]
            p99 = waits[len(waits) * 99 // 100]
            fine = alive and not polite.failures and not group.deaths and after < 2 * before
            cells = [
                name,
                "lives" if alive else "**dead**",
                f"{peak / 2**20:.0f}",
                f"{sockets / 2**20:.0f}",
                f"{count:,}",
                f"{len(waits):,}, {waits[len(waits) // 2] * 1e3:.0f}, {p99 * 1e3:.0f}",
                f"{len(polite.failures)}",
                f"{before / 2**20:.0f}, {after / 2**20:.0f}",
            ]
            print("| " + " | ".join(cells) + " |", flush=True)
            for failure in set(polite.failures):
                print(f"  a polite client: {failure}", file=sys.stderr)
            return fine
    finally:
        time.sleep(0.1)
        group.folder.rmdir()


def main() -> int:
    """Run every scenario."""
    print(
        "| clients | server | peak, MiB of 256 | kernel's sockets, MiB | ended for memory"
        " | polite lines, p50 and p99, ms | lost | resident before and after, MiB |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    fine = [run(name, kinds) for name, kinds in SCENARIOS.items()]
    return 0 if all(fine) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["hog"]:
        hog(int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
    else:
        sys.exit(main())
