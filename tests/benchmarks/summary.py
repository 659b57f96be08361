"""Pure: what the samples say, and how it is told."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "CLIENTS",
    "CROWDS",
    "LOADS",
    "OURS",
    "WAIT_TARGETS",
    "Memory",
    "Row",
    "Sample",
    "Wait",
    "fairness_table",
    "memory_table",
    "speed_table",
    "summarize",
]

OURS = "trio-echo"

LOADS = {
    "roundtrip": "One line per round trip, 50 connections",
    "pipeline": "100 lines in flight, 50 connections",
    "connect": "Connect, one line, close, 20 workers",
}

# The most that our CPU per line may be, as a share of the peer's.
TARGETS = {
    ("roundtrip", "go-silent"): 1.0,
    ("roundtrip", "uvloop"): 1.05,
    ("roundtrip", "c-epoll"): 1.2,
    ("roundtrip", "before"): 1.03,
    ("pipeline", "go-silent"): 0.02,
    ("pipeline", "uvloop"): 1.1,
    ("pipeline", "before"): 1.03,
    ("connect", "go-silent"): 1.0,
    ("connect", "uvloop"): 1.2,
    ("connect", "before"): 1.03,
}

CLIENTS = {
    "idle": "idle after one line",
    "newlines": "bare newlines, never reads",
    "long-lines": "lines of 64 KiB, never reads",
    "unfinished": "64 KiB without LF",
}

CROWDS = {
    "newlines": "20 clients that send bare newlines and read",
    "lines": "100 clients with 100 lines of 44 bytes in flight",
}

# The most seconds that one of ours may wait beside such a crowd, as a median.
WAIT_TARGETS = {"a new connection": 0.05, "an open one": 0.05, "/livez": 0.05, "SIGTERM": 0.1}

# The most memory that one client of ours may take, in bytes.
MEMORY_TARGETS = {"idle": 3686.4, "newlines": 1 << 20, "long-lines": 1 << 20, "unfinished": 1 << 20}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One server under one load in one round.

    Attributes:
        round: which round, from 0; samples of one round are neighbours in time.
        server: name of the server.
        load: name of the load, a key of `LOADS`.
        lines: how many lines were answered within the window.
        seconds: the window's length.
        cpu: the server's user and system time within the window, in seconds.
        p50: median latency in seconds, from a request to its whole answer.
        p99: 99th percentile of it.
    """

    round: int
    server: str
    load: str
    lines: int
    seconds: float
    cpu: float
    p50: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Medians over the rounds for one server under one load.

    Attributes:
        cpu_per_line: seconds of the server's CPU time.
        lines_per_second: as the generator saw it, which may be the limit.
        p50: median latency in seconds.
        p99: 99th percentile of it.
        ratio: our CPU per line as a share of this server's; None without ours.
        target: the most that the ratio may be, None where nothing is asked.
    """

    server: str
    load: str
    cpu_per_line: float
    lines_per_second: float
    p50: float
    p99: float
    ratio: float | None
    target: float | None

    @property
    def missed(self) -> bool:
        """Whether the ratio is over its target."""
        return self.ratio is not None and self.target is not None and self.ratio > self.target


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What one connection costs one server, in bytes of its resident memory.

    Attributes:
        server: name of the server.
        client: what the clients do, a key of `CLIENTS`.
        clients: how many of them there were.
        per_client: growth of the server's memory, divided by their number.
    """

    server: str
    client: str
    clients: int
    per_client: float

    @property
    def missed(self) -> bool:
        """Whether one of our clients takes more than its target."""
        return self.server == OURS and self.per_client > MEMORY_TARGETS[self.client]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """How long somebody waits for a server that a crowd keeps busy.

    Attributes:
        server: name of the server.
        crowd: what the busy clients do, a key of `CROWDS`.
        what: who waits, a key of `WAIT_TARGETS`.
        seconds: until the answer, a median.
    """

    server: str
    crowd: str
    what: str
    seconds: float

    @property
    def missed(self) -> bool:
        """Whether one of ours waits longer than the target."""
        return self.server == OURS and self.seconds > WAIT_TARGETS[self.what]


def summarize(samples: Iterable[Sample]) -> list[Row]:
    """Reduce samples to a row for each load and server, in order of appearance.

    A ratio is the median of the rounds' ratios, not the ratio of medians: what
    disturbed the machine for a while then hits both sides of a ratio alike.
    """
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.load, sample.server), []).append(sample)
    rows = []
    for (load, server), group in groups.items():
        ours = {sample.round: _cpu_per_line(sample) for sample in groups.get((load, OURS), ())}
        ratios = [
            ours[sample.round] / _cpu_per_line(sample) for sample in group if sample.round in ours
        ]
        rows.append(
            Row(
                server=server,
                load=load,
                cpu_per_line=median(map(_cpu_per_line, group)),
                lines_per_second=median(sample.lines / sample.seconds for sample in group),
                p50=median(sample.p50 for sample in group),
                p99=median(sample.p99 for sample in group),
                ratio=median(ratios) if ratios else None,
                target=TARGETS.get((load, server)),
            )
        )
    return rows


def _cpu_per_line(sample: Sample) -> float:
    """Seconds of the server's CPU time for each line; infinite without any line."""
    return sample.cpu / sample.lines if sample.lines else float("inf")


def speed_table(rows: Sequence[Row]) -> str:
    """Write the rows as one Markdown table for each load."""
    header = ["server", "CPU per line, µs", "lines per second", "p50, ms", "p99, ms"]
    header += [f"{OURS} / it", "target", ""]
    parts = []
    for load, title in LOADS.items():
        cells = [
            [
                row.server,
                _digits(row.cpu_per_line * 1e6),
                f"{row.lines_per_second:,.0f}",
                _digits(row.p50 * 1e3),
                _digits(row.p99 * 1e3),
                "" if row.ratio is None else _digits(row.ratio),
                *(
                    ("", "")
                    if row.ratio is None or row.target is None
                    else _against(row.ratio, row.target)
                ),
            ]
            for row in rows
            if row.load == load
        ]
        if cells:
            parts.append(f"{title}:\n\n{_markdown(header, cells)}")
    return "\n\n".join(parts)


def memory_table(memories: Sequence[Memory]) -> str:
    """Write the memory for each client as one Markdown table, a column a kind of client."""
    measured = {(memory.server, memory.client): memory for memory in memories}
    clients = [client for client in CLIENTS if any(memory.client == client for memory in memories)]
    numbers = {memory.client: memory.clients for memory in memories}
    cells = []
    for server in dict.fromkeys(memory.server for memory in memories):
        row = [server]
        for client in clients:
            memory = measured.get((server, client))
            target = MEMORY_TARGETS[client] if server == OURS else None
            row.append("" if memory is None else _digits(memory.per_client / 1024))
            if memory is not None and target is not None:
                row[-1] += " (" + ", ".join(_against(memory.per_client, target, 1024)) + ")"
        cells.append(row)
    header = ["server", *(f"{numbers[client]} x {CLIENTS[client]}" for client in clients)]
    return f"Memory for each client, KiB:\n\n{_markdown(header, cells)}"


def fairness_table(waits: Sequence[Wait]) -> str:
    """Write the waits as one Markdown table for each crowd."""
    measured = {(wait.crowd, wait.server, wait.what): wait for wait in waits}
    parts = []
    for crowd, title in CROWDS.items():
        cells = []
        for server in dict.fromkeys(wait.server for wait in waits):
            row = [server]
            for what, target in WAIT_TARGETS.items():
                wait = measured.get((crowd, server, what))
                row.append("" if wait is None else _digits(wait.seconds * 1e3))
                if wait is not None and server == OURS:
                    row[-1] += " (" + ", ".join(_against(wait.seconds, target, 1e-3)) + ")"
            cells.append(row)
        header = ["server", *WAIT_TARGETS]
        parts.append(f"Median wait beside {title}, ms:\n\n{_markdown(header, cells)}")
    return "\n\n".join(parts)


def _against(value: float, target: float, unit: float = 1) -> tuple[str, str]:
    """Set a value beside the target it must not exceed: the target in a unit, and the mark."""
    return f"<= {target / unit:g}", "pass" if value <= target else "**miss**"


def _digits(value: float) -> str:
    """Write a number with three significant digits, or as a whole one where it has more."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _markdown(header: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    """Write a table with columns as wide as their widest cell; all but the first to the right."""
    rows = [list(header), *map(list, cells)]
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    aligned = [
        [row[0].ljust(widths[0])]
        + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        for row in rows
    ]
    aligned.insert(1, rule)
    return "\n".join("| " + " | ".join(row) + " |" for row in aligned)
