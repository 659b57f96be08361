"""Put real control planes up on this machine, and check the project against them.

``nox -s cluster`` runs it. It needs root, and Go where a program is missing. Everything
happens in namespaces of its own (network, mounts, processes), which end with it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from cluster import checks, programs
from cluster.node import node
from cluster.processes import run
from cluster.record import record

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

RECORDS = Path(__file__).parents[1] / "rehearsal/recorded"
INSIDE = "TRIO_ECHO_CLUSTER_INSIDE"


def main(arguments: Sequence[str]) -> int:
    """Run the checks that are asked for. Gives the exit code: 1 if one failed."""
    parser = argparse.ArgumentParser(prog="nox -s cluster --", description=__doc__)
    parser.add_argument("--record", action="store_true", help="write the records of all routes")
    parser.add_argument("--only", default="", help="the cases or checks with this in their name")
    parser.add_argument("--cache", type=Path, required=True, help="where programs are kept")
    options = parser.parse_args(arguments)
    if os.geteuid() != 0:
        print("needs root: it makes network and mount namespaces", file=sys.stderr)
        return 2
    cache = options.cache.resolve()
    try:
        found = programs.gather(cache, programs.installed())
    except programs.CannotBuildError as error:
        print(error, file=sys.stderr)
        return 2
    if INSIDE not in os.environ:
        # Of its own: network, mounts and processes. Whatever happens to this program,
        # the kernel ends all that was started in there.
        return _enter(arguments)
    os.environ["PATH"] = os.pathsep.join([str(cache / "bin"), os.environ["PATH"]])
    return trio.run(_run, found, cache / "logs", options)


def _enter(arguments: Sequence[str]) -> int:
    words = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
    command = [*words, sys.executable, "-m", "cluster", *arguments]
    child = os.posix_spawnp(command[0], command, {**os.environ, INSIDE: "1"})

    def forward(caught: int, _: object) -> None:
        # unshare itself heeds neither: the program inside does.
        children = Path(f"/proc/{child}/task/{child}/children").read_text(encoding="ascii")
        for each in children.split():
            os.kill(int(each), caught)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, forward)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


async def _run(found: dict[str, Path], logs: Path, options: argparse.Namespace) -> int:
    code = 130
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_until_asked, nursery.cancel_scope)
        code = await _check(found, logs, options)
        nursery.cancel_scope.cancel()
    return code


async def _until_asked(scope: trio.CancelScope) -> None:
    """End at SIGINT and SIGTERM: the first process of a namespace has to ask for them."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()
            return


async def _check(found: dict[str, Path], logs: Path, options: argparse.Namespace) -> int:
    await run("mount", "-t", "tmpfs", "tmpfs", "/run")
    failed = passed = 0
    began = time.monotonic()
    async with node(found, logs) as here:
        print(f"a control plane answers: {time.monotonic() - began:.1f} s", flush=True)
        steps: dict[str, Callable[[], Awaitable[object]]] = {
            name: partial(check, here)
            for name, check in checks.CHECKS.items()
            if options.only in name
        }
        if options.record:
            steps = {"record": partial(record, here, RECORDS, options.only)}
        await checks.install(here)
        print(f"Istio and Envoy Gateway are ready: {time.monotonic() - began:.1f} s", flush=True)
        for name, step in steps.items():
            started = time.monotonic()
            try:
                await step()
            except Exception as error:  # noqa: BLE001 - one check's fault does not hide the others
                failed += 1
                print(f"FAIL {name} ({time.monotonic() - started:.0f} s)", flush=True)
                traceback.print_exception(error, limit=-3)
            else:
                passed += 1
                print(f"ok   {name} ({time.monotonic() - started:.0f} s)", flush=True)
    print(f"{passed} passed, {failed} failed; logs: {logs}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
