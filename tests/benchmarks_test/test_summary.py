"""What the benchmark makes of its samples."""

from __future__ import annotations

import pytest
from benchmarks.summary import (
    OURS,
    WAIT_TARGETS,
    Memory,
    Sample,
    Wait,
    fairness_table,
    memory_table,
    speed_table,
    summarize,
)


def sample(server: str, number: int, cpu: float, lines: int = 1000) -> Sample:
    """Make a sample of one load that took `cpu` seconds."""
    return Sample(
        round=number,
        server=server,
        load="roundtrip",
        lines=lines,
        seconds=2.0,
        cpu=cpu,
        p50=0.001,
        p99=0.004,
    )


def test_the_median_is_over_rounds_and_one_disturbed_round_does_not_count() -> None:
    """The figures of a server are those of its middle round."""
    (row,) = summarize(sample("uvloop", number, cpu) for number, cpu in enumerate([0.1, 9.0, 0.2]))
    assert row.cpu_per_line == pytest.approx(0.0002)
    assert row.lines_per_second == 500
    assert row.ratio is None


def test_a_ratio_is_taken_within_a_round() -> None:
    """A machine that slows down for a round slows both, and the ratio stays."""
    pace = [1.0, 4.0, 2.0]
    samples = [
        sample(server, number, cpu * factor)
        for number, factor in enumerate(pace)
        for server, cpu in ((OURS, 0.3), ("go-silent", 0.2))
    ]
    assert [row.ratio for row in summarize(samples)] == pytest.approx([1.0, 1.5])


def test_the_table_marks_what_meets_its_target_and_what_misses() -> None:
    """1.5 of the silent Go server is too much, 0.75 of the uvloop one is little enough."""
    samples = [sample(OURS, 0, 0.3), sample("go-silent", 0, 0.2), sample("uvloop", 0, 0.4)]
    rows = summarize(samples)
    assert [row.missed for row in rows] == [False, True, False]
    lines = speed_table(rows).splitlines()
    assert lines[0] == "One line per round trip, 50 connections:"
    assert [cell.strip() for cell in lines[-2].split("|")[-4:-1]] == ["1.5", "<= 1", "**miss**"]
    assert [cell.strip() for cell in lines[-1].split("|")[-4:-1]] == ["0.75", "<= 1.05", "pass"]
    assert len({len(line) for line in lines[2:]}) == 1


def test_a_server_that_answered_nothing_has_no_finite_cost() -> None:
    """Not a division by zero, nor a free line."""
    (row,) = summarize([sample("trio", 0, 0.1, lines=0)])
    assert row.cpu_per_line == float("inf")


def test_memory_is_told_by_client_and_judged_for_ours_only() -> None:
    """A column for each kind of client that was measured."""
    memories = [
        Memory(server=OURS, client="idle", clients=8000, per_client=5120),
        Memory(server=OURS, client="newlines", clients=20, per_client=1024),
        Memory(server="uvloop", client="newlines", clients=20, per_client=1 << 25),
    ]
    assert [memory.missed for memory in memories] == [True, False, False]
    header, _, ours, uvloop = memory_table(memories).splitlines()[2:]
    assert "8000 x idle after one line" in header
    assert [cell.strip() for cell in ours.split("|")[2:-1]] == [
        "5 (<= 3.6, **miss**)",
        "1 (<= 1024, pass)",
    ]
    assert [cell.strip() for cell in uvloop.split("|")[2:-1]] == ["", "32768"]


def test_waits_are_told_by_crowd_and_judged_for_ours_only() -> None:
    """A column for each who waits; nobody asks others for a page that they have not."""
    waits = [
        Wait(server=OURS, crowd="newlines", what="an open one", seconds=0.0512),
        Wait(server=OURS, crowd="newlines", what="SIGTERM", seconds=0.0512),
        Wait(server="go-silent", crowd="newlines", what="an open one", seconds=0.3),
    ]
    assert [wait.missed for wait in waits] == [True, False, False]
    first, _ = fairness_table(waits).split("\n\nMedian wait beside 100")
    header, _, ours, go = first.splitlines()[2:]
    assert [cell.strip() for cell in header.split("|")[1:-1]] == ["server", *WAIT_TARGETS]
    assert [cell.strip() for cell in ours.split("|")[3:6]] == [
        "51.2 (<= 50, **miss**)",
        "",
        "51.2 (<= 100, pass)",
    ]
    assert [cell.strip() for cell in go.split("|")[3:6]] == ["300", "", ""]
