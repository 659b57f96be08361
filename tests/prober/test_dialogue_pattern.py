"""Who answered, told by an expression over what any server says."""

from __future__ import annotations

import time
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_echo.errors import ConfigError
from trio_echo.prober.counts import Outcome
from trio_echo.prober.dialogue import MOST_BYTES, Answer, FailureError, Pattern, escape, unescape

if TYPE_CHECKING:
    from collections.abc import Sequence

pytest.importorskip("re2", reason="google-re2 is not installed: pip install google-re2")

EXPRESSIONS = [
    r"id:(\w+)",
    r"id:(.*)",
    r"(?s)id:(.*)x",
    r"^(\w+)$",
    r"(\w+)\n$",
    r"a(b|.*c)|(?:)",
    r"(a.*c|b)",
    r"\n\b(a)",
    r"(\w+)\z",
    r"(^\b\w?(?s:.)*)",
    r"((?s:.)?$+)",
    r"([^\x00]+)\x00",
    r"(?i)ID:(?:(b)|c)",
]
BYTES = st.lists(
    st.sampled_from([b"id:", b"a", b"b", b"c", b"x", b"\n", b"\r\n", b"\0", b"\xff", b" "]),
    max_size=12,
).map(b"".join)


def told(answer: Answer, chunks: Sequence[bytes]) -> tuple[str, str]:
    """The name, or the failure, that comes of these chunks and the end of file."""
    try:
        for chunk in chunks:
            name = answer.feed(chunk) if chunk else None
            if name is not None:
                return "name", name
        return "name", answer.end()
    except FailureError as failure:
        return str(failure.outcome), failure.detail


@given(data=BYTES, cuts=st.lists(st.integers(0, 40)), expression=st.sampled_from(EXPRESSIONS))
@example(data=b"id:a\nid:b\n", cuts=[5], expression=r"(\w+)\n$")
@example(data=b"abd\nc\n", cuts=[4], expression=r"(?s)(a.*c|b)")
@example(data=b"id:b\x00\n", cuts=[4], expression=r"id:(.*)")
def test_how_bytes_are_cut_makes_no_difference(
    data: bytes, cuts: list[int], expression: str
) -> None:
    """The name is that of the first line or text at whose end the expression matches."""
    places = sorted({0, *(min(cut, len(data)) for cut in cuts), len(data)})
    chunks = [data[start:end] for start, end in pairwise(places)]
    pattern = Pattern(b"", expression)
    in_pieces = told(pattern.answer(b""), chunks)
    assert in_pieces == told(pattern.answer(b""), [data])
    assert in_pieces == told(pattern.answer(b""), [bytes([byte]) for byte in data])


@pytest.mark.parametrize(
    ("expression", "came", "name"),
    [
        (r"version:(\S+)", b"# Server\r\nversion:7.0.15\r\nmode:x\r\n", "7.0.15"),
        (r"^SSH-[\d.]+-(\S+)", b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", "OpenSSH_9.2p1"),
        (r"\n([^\x00]+)\x00", b"J\0\0\0\n8.0.36\0\x08\0\0\0abc", "8.0.36"),
        (r"version:(.*)\r$", b"version:7 \r\n", "7 "),
        (r"v(\xff+)", b"v\xff\xff\n", "\udcff\udcff"),
        ("n(ü+)", "nüü\n".encode(), "ü"),
        (r"id:(a)?", b"id:b\n", ""),
        (r"(a)|(b)", b"b\n", ""),
    ],
)
def test_names(expression: str, came: bytes, name: str) -> None:
    """Found as soon as the line is whole, in text and in binary protocols."""
    assert Pattern(b"", expression).answer(b"").feed(came) == name


def test_an_unfinished_line_is_no_answer_until_the_end() -> None:
    """A name that is cut in half would be another backend's."""
    answer = Pattern(b"", r"id:(\d+)").answer(b"")
    assert answer.feed(b"id:1") is None
    assert answer.late().outcome is Outcome.NO_MATCH
    assert answer.late().detail == (
        "no match for --identify in 4 bytes, the last line unfinished: 'id:1'"
    )
    assert answer.feed(b"2") is None
    assert answer.end() == "12"


@pytest.mark.parametrize(
    ("came", "outcome", "detail"),
    [
        (b"", Outcome.EOF_BEFORE_ANSWER, ""),
        (b"-ERR no\r\n", Outcome.NO_MATCH, r"in 9 bytes, then the end: '-ERR no\r\n'"),
        (b"\n", Outcome.NO_MATCH, r"in 1 byte, then the end: '\n'"),
        (b"x" * 90, Outcome.NO_MATCH, f"in 90 bytes, then the end: '{'x' * 60}'..."),
        (b"id:" + b"1" * 256, Outcome.NO_MATCH, "--identify gives a name of 256 bytes: '111"),
        (b"y\n" * 40_000, Outcome.NO_MATCH, "in 65536 bytes, and no more are looked at: 'y"),
    ],
)
def test_no_answer(came: bytes, outcome: Outcome, detail: str) -> None:
    """What came is said, from its start."""
    found, words = told(Pattern(b"", r"id:(\d+)").answer(b""), [came])
    assert found == outcome
    assert detail in words


def test_nothing_in_time() -> None:
    """Silence is another outcome than an answer without a name."""
    answer = Pattern(b"", "(x)").answer(b"")
    assert answer.late().outcome is Outcome.READ_TIMEOUT
    assert answer.late().detail == "nothing was sent, and the server did not speak first"
    assert not Pattern(b"who", "(x)").answer(b"who").late().detail
    assert answer.feed(b"y\n") is None
    assert answer.late().detail == r"no match for --identify in 2 bytes: 'y\n'"


@pytest.mark.parametrize(
    ("expression", "byte"),
    [
        ("(a+)+$", b"a"),
        ("(.*)*x", b"a"),
        (".*.*.*(x)", b"a"),
        (r"(a|aa)+$", b"a"),
        (r"(?:.*a.{240})(x)", b"a"),
        (r"(\n*)*x", b"\n"),
        (r"(?:[ab]*a[ab]{400})(x)", b"ba\n"),
    ],
)
def test_no_expression_hangs(expression: str, byte: bytes) -> None:
    """Python's own engine takes minutes for some of these, over far less."""
    began = time.process_time()
    told(Pattern(b"", expression).answer(b""), [(byte * MOST_BYTES)[:MOST_BYTES]])
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("(", r"is no expression of RE2: missing ), got '('"),
        (r"(a)\1", "is no expression of RE2: invalid escape sequence, got"),
        ("(?=a)", "is no expression of RE2: invalid perl operator, got"),
        ("x", r"must have a group around the name, such as version:(\S+), got 'x'"),
        ("(?:x)", "must have a group"),
        ("(a{600})", "is too large, 606 steps of 500: shorten it"),
        (r"(a)\B", r"must not have \B"),
        ("(\x1b", r"got '(\x1b'"),
        ("(\ud800)", r"holds half a character: '(\ud800)'"),
    ],
)
def test_expressions_that_cannot_work(expression: str, words: str) -> None:
    """Each in one line, safe to print."""
    with pytest.raises(ConfigError) as refused:
        Pattern(b"", expression)
    assert refused.value.field == "identify"
    assert words in refused.value.reason


@given(data=st.binary())
def test_what_is_sent_can_be_written_as_text(data: bytes) -> None:
    """The report has it as the option takes it."""
    assert unescape(escape(data)) == data
    assert escape(data).isascii()
    assert escape(data).isprintable()


@given(text=st.text())
def test_any_text_to_send_is_taken_or_refused(text: str) -> None:
    """Never another error; what has no backslash is sent as it is."""
    with suppress(ConfigError):
        assert unescape(text) == text.encode(errors="surrogateescape") or "\\" in text


@pytest.mark.parametrize(
    ("text", "data"),
    [
        (r"INFO\r\n", b"INFO\r\n"),
        (r"\t\0\\\x00\xff\xFe", b"\t\0\\\0\xff\xfe"),
        (r"\\n", b"\\n"),
        ("é\udcff", "é".encode() + b"\xff"),
        (r"\01", b"\x001"),
    ],
)
def test_escapes(text: str, data: bytes) -> None:
    """Those of the help, and no others."""
    assert unescape(text) == data


@pytest.mark.parametrize(
    ("text", "got"),
    [("a\\", "\\"), (r"\q", r"\q"), (r"\x1", r"\x"), (r"\xg0", r"\x"), ("\\\n", r"\\n")],
)
def test_other_escapes_are_refused(text: str, got: str) -> None:
    """What somebody meant by them is not guessed."""
    with pytest.raises(ConfigError) as refused:
        unescape(text)
    assert refused.value.reason == rf"must have \r \n \t \0 \\ \xNN alone, got '{got}'"
