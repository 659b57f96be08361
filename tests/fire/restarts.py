"""Two servers behind a balancer, restarted in turns while clients come.

In Kubernetes a pod that is to end is taken out of its Service, which takes a
moment to reach every balancer; a ``preStop`` sleep gives it that moment, and
only then comes SIGTERM. The program restarts servers both ways, behind HAProxy
and behind Envoy: with that moment, and with SIGTERM at once, where the balancer
learns of it from refused connections alone. It prints how many clients were
lost, and ends by itself.

    unshare --net python -m fire.restarts --times 50
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from fire.clients import Account, Order
from fire.drains import coming
from fire.server import ServerProcess, free_port, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BALANCERS", "Restarts", "restart"]

_MOMENT: Final = 0.3
"""Seconds of the ``preStop`` sleep: a balancer on the same machine learns quickly."""

_HAPROXY: Final = """
global
    stats socket {folder}/admin level admin
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    retries 3
    option redispatch 1
frontend front
    bind 127.0.0.1:{front}
    default_backend back
backend back
    balance roundrobin
    server s0 127.0.0.1:{ports[0]}
    server s1 127.0.0.1:{ports[1]}
"""


class Balancer(Protocol):
    """What stands before the servers."""

    def tell(self, place: int, *, ready: bool) -> None:
        """Say whether new connections may go to a server."""


@dataclass
class HAProxy:
    """HAProxy, told through its runtime socket.

    Attributes:
        folder: where its files are.
        ports: of the servers.
        front: its own port.
    """

    folder: Path
    ports: tuple[int, int]
    front: int

    def command(self) -> list[str]:
        """Write its configuration, and say how to start it."""
        text = _HAPROXY.format(folder=self.folder, ports=self.ports, front=self.front)
        (self.folder / "haproxy.cfg").write_text(text, "utf-8")
        return ["haproxy", "-db", "-q", "-f", str(self.folder / "haproxy.cfg")]

    def tell(self, place: int, *, ready: bool) -> None:
        """See `Balancer`."""
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(str(self.folder / "admin"))
            state = "ready" if ready else "drain"
            admin.sendall(f"set server back/s{place} state {state}\n".encode())
            while admin.recv(1000):
                pass


@dataclass
class Envoy:
    """Envoy, told through a file of endpoints.

    Attributes:
        folder: where its files are.
        ports: of the servers.
        front: its own port.
        ready: whether new connections may go to each.
    """

    folder: Path
    ports: tuple[int, int]
    front: int
    ready: list[bool] = field(default_factory=lambda: [True, True])

    def command(self) -> list[str]:
        """Write its configuration, and say how to start it."""
        self._write_endpoints()
        kind = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
        proxy = {
            "name": "tcp",
            "typed_config": {
                "@type": kind,
                "stat_prefix": "tcp",
                "cluster": "back",
                "max_connect_attempts": 3,
            },
        }
        listener = {
            "name": "front",
            "address": _address(self.front),
            "filter_chains": [{"filters": [proxy]}],
        }
        cluster = {
            "name": "back",
            "type": "EDS",
            "connect_timeout": "5s",
            # Else one server of two that is not ready makes it use both.
            "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
            "eds_cluster_config": {
                "eds_config": {"path_config_source": {"path": str(self.folder / "eds.json")}}
            },
        }
        bootstrap = {
            "node": {"id": "fire", "cluster": "fire"},
            "static_resources": {"listeners": [listener], "clusters": [cluster]},
        }
        (self.folder / "envoy.json").write_text(json.dumps(bootstrap), "utf-8")
        envoy = Path(sys.executable).with_name("envoy")
        options = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "error"]
        return [str(envoy), "-c", str(self.folder / "envoy.json"), *options]

    def tell(self, place: int, *, ready: bool) -> None:
        """See `Balancer`."""
        self.ready[place] = ready
        self._write_endpoints()

    def _write_endpoints(self) -> None:
        endpoints = [
            {
                "endpoint": {"address": _address(port)},
                "health_status": "HEALTHY" if ready else "DRAINING",
            }
            for port, ready in zip(self.ports, self.ready, strict=True)
        ]
        assignment = {
            "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": "back",
            "endpoints": [{"lb_endpoints": endpoints}],
        }
        # Envoy looks at the file when another is moved into its place.
        new = self.folder / "eds.new"
        new.write_text(json.dumps({"resources": [assignment]}), "utf-8")
        new.replace(self.folder / "eds.json")


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


BALANCERS: Final = {"HAProxy": HAProxy, "Envoy": Envoy}


@dataclass(frozen=True)
class Restarts:
    """What became of a number of restarts in a row.

    Attributes:
        account: the clients'.
        codes: the exit codes of the servers that ended.
        counted: clients that those say they have lost.
    """

    account: Account
    codes: list[int]
    counted: int

    @property
    def lost(self) -> int:
        """Clients that did not get their answer through the balancer."""
        return self.account.came - self.account.outcomes.get("answered", 0)


def restart(name: str, times: int, *, moment: float, rate: float) -> Restarts:
    """Restart the two servers in turns.

    Args:
        name: of the balancer.
        times: how often.
        moment: seconds between the balancer's being told and SIGTERM; 0: it is not told.
        rate: clients a second.
    """
    with tempfile.TemporaryDirectory() as text, ExitStack() as stack:
        folder = Path(text)
        servers = [Place(), Place()]
        for place in servers:
            stack.enter_context(place.stack)
            place.start()
        balancer = BALANCERS[name](folder, (servers[0].port, servers[1].port), free_port())
        stack.enter_context(running(balancer.command(), balancer.front))
        order = Order("127.0.0.1", balancer.front, rate=rate, seconds=10_000)
        clients = stack.enter_context(coming(order))
        codes, counted = [], 0
        for number in range(times):
            place = servers[number % 2]
            if moment:
                balancer.tell(number % 2, ready=False)
                time.sleep(moment)
            old = place.replace()
            codes.append(old.wait())
            counted += old.counted
            if moment:
                balancer.tell(number % 2, ready=True)
            time.sleep(0.2)
        clients.send_signal(signal.SIGTERM)
        told, errors = clients.communicate(timeout=60)
        assert clients.returncode == 0, errors
    return Restarts(Account(**json.loads(told)), codes, counted)


class Place:
    """Where one server after another runs."""

    def __init__(self) -> None:
        self.port = 0
        self.stack = ExitStack()
        self._server: ServerProcess | None = None

    def start(self) -> None:
        """Start a server; it has the port of those before it."""
        arguments = ("--host", "127.0.0.1", str(self.port), "one")
        self._server = self.stack.enter_context(serving(*arguments))
        self.port = self._server.ports[0]

    def replace(self) -> ServerProcess:
        """Have the server end, and start the next as soon as the port is free."""
        old = self._server
        assert old is not None
        old.process.send_signal(signal.SIGTERM)
        old.wait_for("draining")
        while not _can_bind(self.port):
            time.sleep(0.01)
        self.start()
        return old


def _can_bind(port: int) -> bool:
    """Whether a server could listen there, without listening: a client would reach it."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


@contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """Run a balancer, once it listens."""
    with subprocess.Popen(command) as process:
        try:
            end = time.monotonic() + 20
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                except ConnectionRefusedError:
                    assert time.monotonic() < end, f"{command[0]} does not listen"
                    assert process.poll() is None, f"{command[0]} ended"
                    time.sleep(0.05)
                else:
                    break
            yield
        finally:
            process.kill()


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--rate", type=float, default=200.0, help="clients a second")
    options = parser.parse_args()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)  # noqa: S607 - iproute2, from PATH
    print(f"{'':28}{'restarts':>9}{'clients':>9}{'lost':>6}{'exit 0':>8}{'connect p99 ms':>16}")
    failed = False
    for name in BALANCERS:
        for words, moment in (("with preStop", _MOMENT), ("without", 0.0)):
            done = restart(name, options.times, moment=moment, rate=options.rate)
            account = done.account
            print(
                f"{name + ', ' + words:28}{len(done.codes):9}{account.came:9,}{done.lost:6}"
                f"{done.codes.count(0):8}{account.connect_ms[1]:16.1f}"
            )
            sys.stdout.flush()
            failed |= bool(moment and done.lost) or any(done.codes)
    return 1 if failed else 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
