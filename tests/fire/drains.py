"""A server that is told to end while clients come: once, and as often as asked.

As a program it does so many times and prints, for each kind of run, how many
clients came, how they fared, and how many of the lost ones the server did not
count. It ends by itself. It needs root, and a network namespace of its own:

    unshare --net python -m fire.drains --times 300
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from certificates import Certificates
from fire.clients import Account, Order
from fire.link import MIRRORS, SERVER, slow_link
from fire.server import free_port, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PLANS", "Drain", "Plan", "coming", "drain", "run"]

_CLIENTS: Final = Path(__file__).with_name("clients.py")


@dataclass(frozen=True)
class Plan:
    """One kind of run.

    Attributes:
        name: for the table.
        order: what the clients do.
        server: further options of the server.
        load: seconds until the signal.
        round_trip: seconds; 0 for loopback.
        loss: the share of packets lost.
        stalls: whether the server's process stands still now and then around
            the signal, as on a busy machine.
        patience: milliseconds after which clients send again at the earliest; 0 for
            what their kernel finds right. A kernel that remembers slow connections
            to the same address takes so long.
        lossless: whether every client that was connected must be answered.
        share: of all drains that this kind gets.
    """

    name: str
    order: Order
    server: tuple[str, ...] = ()
    load: float = 1.0
    round_trip: float = 0.0
    loss: float = 0.0
    stalls: bool = False
    patience: int = 0
    lossless: bool = True
    share: float = 0.0


@dataclass(frozen=True)
class Drain:
    """What became of one.

    Attributes:
        account: the clients'.
        exit_code: the server's.
        counted: clients that the server says it has cut or refused.
        seconds: from the signal to the end.
        log: what the server said.
    """

    account: Account
    exit_code: int
    counted: int
    seconds: float
    log: tuple[str, ...]

    @property
    def lost(self) -> int:
        """How many clients were connected and not answered, in their own view."""
        ends = self.account.outcomes.items()
        return sum(number for end, number in ends if end not in ("answered", "refused"))

    @property
    def silent(self) -> int:
        """How many of those at least nobody counted."""
        return max(0, self.lost - self.counted)

    def faults(self, plan: Plan) -> list[str]:
        """Say what should not have been."""
        faults = []
        if self.silent:
            faults.append(f"{self.silent} clients lost and not counted: {self.account.lost[:3]}")
        if plan.lossless and self.lost:
            faults.append(f"{self.lost} clients lost: {self.account.lost[:3]}")
        if self.exit_code != bool(self.counted):
            faults.append(f"exit code {self.exit_code}, {self.counted} counted")
        if plan.lossless and self.counted:
            faults.append(f"{self.counted} counted as lost")
        return faults


def drain(plan: Plan, python: str = sys.executable, chance: random.Random | None = None) -> Drain:
    """Run one: a server, its clients, the signal, and what became of all."""
    _set_patience(plan)
    listen = SERVER if plan.round_trip else "0.0.0.0"
    hosts = MIRRORS[:200] if plan.round_trip else [f"127.0.0.{number}" for number in range(1, 200)]
    order = replace(plan.order, hosts=",".join(hosts))
    with tempfile.TemporaryDirectory() as folder:
        options = ["--host", listen, *plan.server, "0", "one"]
        if order.tls:
            files = Certificates.issue(Path(folder))
            order = replace(order, tls=str(files.ca))
            spare = str(free_port())
            options += [
                "--tls-ports",
                spare,
                "--tls-cert",
                str(files.cert),
                "--tls-key",
                str(files.key),
            ]
        with serving(*options, python=python, listeners=2 if order.tls else 1) as server:
            order = replace(order, port=server.ports[-1])
            with coming(order) as clients:
                time.sleep(plan.load)
                server.process.send_signal(signal.SIGTERM)
                began = time.monotonic()
                if plan.stalls:
                    _stall(server.process, chance or random.Random())  # noqa: S311 - no secret
                told, errors = clients.communicate(timeout=120)
                assert clients.returncode == 0, errors
                code = server.wait()
                seconds = time.monotonic() - began
    return Drain(
        Account(**json.loads(told)), code, server.counted, round(seconds, 2), tuple(server.log)
    )


@contextmanager
def coming(order: Order) -> Iterator[subprocess.Popen[str]]:
    """Run clients in a process; they have begun to come by now."""
    command = [sys.executable, str(_CLIENTS)]
    command += [f"--{name.replace('_', '-')}={value}" for name, value in asdict(order).items()]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as clients:
        assert clients.stderr is not None
        clients.stderr.readline()
        try:
            yield clients
        finally:
            clients.kill()


def _stall(process: subprocess.Popen[str], chance: random.Random) -> None:
    """Have the process stand still three times within the next second."""
    for _ in range(3):
        time.sleep(chance.choice((0.0, 0.001, 0.01, 0.1)))
        process.send_signal(signal.SIGSTOP)
        time.sleep(chance.choice((0.02, 0.15, 0.25, 0.45, 0.7)))
        process.send_signal(signal.SIGCONT)


def _set_patience(plan: Plan) -> None:
    """Have clients send again so late only."""
    where = "10.77.0.0/16 dev slow0" if plan.round_trip else "local 127.0.0.0/8 dev lo table local"
    command = f"ip route replace {where} rto_min {plan.patience or 200}ms"
    subprocess.run(command.split(), check=True)


_MANY: Final = Order("", 0, at_once=64, talkers=20)
_RATE: Final = Order("", 0, rate=200)

PLANS: Final = (
    Plan("loopback", _MANY, share=0.4),
    Plan("loopback, the server stalls", replace(_MANY, at_once=32), stalls=True, share=0.1),
    Plan("loopback, slow to send again", Order("", 0, rate=1500), patience=800, share=0.06),
    Plan("loopback, TLS", Order("", 0, at_once=16, talkers=5, tls="yes"), share=0.1),
    Plan("loopback, slow readers", Order("", 0, at_once=8, slow=20), share=0.06),
    Plan("50 ms", _RATE, load=0.8, round_trip=0.05, share=0.03),
    Plan("50 ms, TLS", replace(_RATE, tls="yes"), load=0.8, round_trip=0.05, share=0.03),
    Plan("50 ms, the server stalls", _RATE, stalls=True, round_trip=0.05, share=0.02),
    Plan("50 ms, slow to send again", _RATE, patience=800, round_trip=0.05, share=0.02),
    Plan("200 ms", _RATE, round_trip=0.2, share=0.03),
    Plan("200 ms, TLS", replace(_RATE, tls="yes"), load=1.5, round_trip=0.2, share=0.02),
    Plan("500 ms", _RATE, load=2, round_trip=0.5, share=0.02),
    Plan("500 ms, TLS", replace(_RATE, tls="yes"), load=3, round_trip=0.5, share=0.02),
    Plan("50 ms, 1 % of packets lost", _RATE, load=2, round_trip=0.05, loss=0.01, share=0.02),
    Plan(
        "full, with a backlog",
        replace(_MANY, at_once=100, talkers=0),
        server=("--max-connections", "2"),
        share=0.03,
    ),
    Plan(
        "full to the deadline",
        Order("", 0, at_once=100, stay=1),
        server=("--max-connections", "1", "--drain-timeout", "2"),
        load=0.3,
        lossless=False,
        share=0.02,
    ),
    Plan(
        "full to the deadline, 200 ms",
        Order("", 0, rate=100, stay=1),
        server=("--max-connections", "5", "--drain-timeout", "3"),
        round_trip=0.2,
        lossless=False,
        share=0.01,
    ),
    Plan(
        "--drain-timeout 0",
        replace(_MANY, at_once=200, talkers=0),
        server=("--drain-timeout", "0"),
        lossless=False,
        share=0.02,
    ),
    Plan(
        "--drain-timeout 0, 200 ms",
        _RATE,
        server=("--drain-timeout", "0"),
        round_trip=0.2,
        lossless=False,
        share=0.01,
    ),
)
"""Every kind of run."""


def run(plan: Plan, times: int, python: str, seed: int) -> tuple[list[Drain], list[str]]:
    """Drain so many servers; return all of them, and what should not have been."""
    chance = random.Random(seed)  # noqa: S311 - when a process stalls is no secret
    link = slow_link(plan.round_trip, plan.loss, seed) if plan.round_trip else nullcontext()
    with link:
        drains = [drain(plan, python, chance) for _ in range(times)]
    return drains, [fault for each in drains for fault in each.faults(plan)]


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=300, help="drains in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="kinds whose name has this in it")
    parser.add_argument("--python", default=sys.executable, help="whose trio-echo is run")
    options = parser.parse_args()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)  # noqa: S607 - iproute2, from PATH
    print(
        f"{'':30}{'drains':>7}{'clients':>10}{'answered':>10}{'refused':>9}"
        f"{'lost':>6}{'uncounted':>10}{'refusal ms':>11}{'end s':>7}"
    )
    failed: list[str] = []
    total: Counter[str] = Counter()
    for plan in PLANS:
        if options.only not in plan.name:
            continue
        times = max(1, round(options.times * plan.share))
        drains, faults = run(plan, times, options.python, options.seed)
        failed += [f"{plan.name}: {fault}" for fault in faults]
        figures = Counter(
            {
                "drains": times,
                "clients": sum(each.account.came for each in drains),
                "answered": sum(each.account.outcomes.get("answered", 0) for each in drains),
                "refused": sum(each.account.outcomes.get("refused", 0) for each in drains),
                "lost": sum(each.lost for each in drains),
                "silent": sum(each.silent for each in drains),
            }
        )
        total += figures
        refusals = [each.account.refused_ms[1] for each in drains if each.account.refused_ms]
        ends = [each.seconds for each in drains]
        print(_row(plan.name, figures) + f"{max(refusals, default=0):11.1f}{max(ends):7.2f}")
        sys.stdout.flush()
    print(_row("all", total))
    print("\n".join(failed) or "Every client that was connected was served, or counted.")
    return 1 if failed else 0


def _row(name: str, figures: Counter[str]) -> str:
    return (
        f"{name:30}{figures['drains']:7}{figures['clients']:10,}{figures['answered']:10,}"
        f"{figures['refused']:9,}{figures['lost']:6,}{figures['silent']:10,}"
    )


if __name__ == "__main__":
    sys.exit(main())
