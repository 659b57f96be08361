"""Reports among other lines: each is found once, and none that is cut off passes unseen."""

from __future__ import annotations

import json
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from reports import made

from trio_echo.errors import TrioEchoError
from trio_echo.prober.document import error_json, find, to_json

DOCUMENTS = [to_json(made(["one"] * count, run=f"{count}")).strip() for count in range(1, 4)]
PREFIXES = ["", "2026-08-01T12:00:00Z ", "[pod/probe-0-x7z/probe] ", "garbage {"]
LINES = ["", "PASS: all is well", "{", '{"format": "json"}', '{"format": 2}', "\udcff\0", "}"]


@examples(0.3)
@given(
    lines=st.lists(
        st.one_of(
            st.sampled_from(LINES),
            st.tuples(st.sampled_from(PREFIXES), st.sampled_from(DOCUMENTS)).map("".join),
        )
    ),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_each_report_is_found_once_among_any_lines(lines: list[str], end: str) -> None:
    """In whatever order, behind whatever stands before it, however often."""
    there = {document for line in lines for document in DOCUMENTS if line.endswith(document)}
    data = "".join(line + end for line in lines).encode(errors="surrogateescape")
    if not there:
        with pytest.raises(TrioEchoError, match=r"^log: "):
            find(data, "log")
        return
    found = find(data, "log")
    assert {to_json(report).strip() for report in found.reports.values()} == there
    copies = sum(line.endswith(tuple(DOCUMENTS)) for line in lines)
    assert len(found.reports) + len(found.notes) == copies
    assert found.broken == 0


@examples(0.3)
@given(place=st.integers(0, len(DOCUMENTS[1]) - 1), line=st.sampled_from(["\n", "\nlog\n"]))
def test_a_report_that_is_cut_is_never_taken_nor_lost_unseen(place: int, line: str) -> None:
    """Not even by the first characters, which alone look like anything."""
    data = f"{DOCUMENTS[0]}\n{DOCUMENTS[1][:place]}{line}{DOCUMENTS[2]}\n"
    found = find(data.encode(), "log")
    assert len(found.reports) == 2
    assert found.broken == (place >= len('{"format": 2, "tool": "trio-echo '))


BEGIN = '{"format": 2, "tool": "trio-echo 1"'


@pytest.mark.parametrize(
    "line",
    [
        BEGIN,
        BEGIN + ', "more": [',
        BEGIN + ', "more": [' + "1, " * 3000,
        BEGIN + ', "interrupted": true, "error": "%d"}',
    ],
)
def test_a_log_made_to_be_slow(line: str) -> None:
    """Reports that do not end, also ones that hold each other, and ones that tell nothing."""
    lines = 2_000_000 // len(line)
    data = "\n".join(line.replace("%d", str(number)) for number in range(lines))
    began = process_time()
    found = find(f"{data}\n{DOCUMENTS[0]}".encode(), "log")
    assert process_time() - began < 2.5
    assert len(found.reports) == 1
    assert found.broken + len(found.notes) == lines


def test_any_layout_is_read() -> None:
    """As jq prints it, sorted or not, one or several."""
    pretty = [json.dumps(json.loads(text), indent=2) for text in DOCUMENTS]
    assert len(find("\n".join(pretty).encode(), "log").reports) == 3
    ordered = json.dumps(json.loads(DOCUMENTS[0]), sort_keys=True)
    assert [*find(ordered.encode(), "a.json").reports] == ["a.json"]


def test_a_report_is_called_by_its_pod() -> None:
    """Where the lines say which; by its number elsewhere."""
    lines = [
        f"[pod/probe-0-x7z/probe] {DOCUMENTS[0]}",
        f"[pod/probe-0-x7z/probe] {DOCUMENTS[1]}",
        DOCUMENTS[2],
    ]
    found = find("\n".join(lines).encode(), "log")
    assert [*found.reports] == ["log: probe-0-x7z", "log: probe-0-x7z, report 2", "log: report 3"]


@pytest.mark.parametrize("rest", ["", ', "runs": ['])
def test_a_line_of_many_beginnings_is_soon_over(rest: str) -> None:
    """Anybody may write one into a log; each may neither be read to the end nor be kept."""
    hostile = ('{"format": 2, "tool": "trio-echo "' + rest) * 100_000
    found = find(f"{hostile}\n{DOCUMENTS[0]}".encode(), "log")
    assert len(found.reports) == 1
    assert found.broken


def test_what_holds_no_report_says_what_it_holds() -> None:
    """An error is one; whoever was stopped at once is only noted."""
    stopped = error_json("stopped", interrupted=True)
    found = find((DOCUMENTS[0] + "\n" + stopped).encode(), "log")
    assert found.notes == ["log: report 2: was interrupted before its first connection"]
    with pytest.raises(TrioEchoError, match=r"^log: holds no report but an error: stopped$"):
        find(stopped.encode(), "log")
    with pytest.raises(TrioEchoError, match=r"^log: report 2: holds no report but an error: no$"):
        find((DOCUMENTS[0] + "\n" + error_json("no")).encode(), "log")
    with pytest.raises(TrioEchoError, match=r"^log: holds no whole report$"):
        find(DOCUMENTS[0][:500].encode(), "log")
