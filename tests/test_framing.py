"""The wire contract holds for every input and every cutting of it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from trio_echo.errors import ConfigError
from trio_echo.framing import (
    DEFAULT_MAX_LINE,
    MAX_ANSWER,
    MAX_PREFIX,
    Framer,
    LineTooLongError,
    encode_prefix,
)

if TYPE_CHECKING:
    from collections.abc import Iterable


def reference(prefix: bytes, limit: int, received: bytes) -> tuple[bytes, bool]:
    """Answer a whole conversation naively: the model that the framer must equal.

    Returns:
        All that is sent until the end of file, and whether it ended with the
        error line.
    """
    sent = b""
    *lines, rest = received.split(b"\n")
    for line in lines:
        if len(line) > limit:
            return sent + b"error: line longer than %d bytes\n" % limit, True
        sent += prefix + line + b"\n"
    if len(rest) > limit:
        return sent + b"error: line longer than %d bytes\n" % limit, True
    return sent + (prefix + rest if rest else b""), False


def converse(framer: Framer, chunks: Iterable[bytes]) -> tuple[bytes, bool]:
    """Feed chunks and the end of file, as a handler would."""
    sent = b""
    try:
        for chunk in chunks:
            sent += framer.feed(chunk)
    except LineTooLongError as error:
        return sent + error.answer, True
    return sent + framer.end(), False


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Cut data at places, counted modulo its length; equal places give empty chunks."""
    bounds = sorted(place % (len(data) + 1) for place in places)
    return [data[a:b] for a, b in zip([0, *bounds], [*bounds, len(data)], strict=True)]


# Mostly LF, CR, NUL, invalid UTF-8 and a letter: what a framer trips over.
payloads = st.lists(
    st.sampled_from([b"\n", b"a", b"\r", b"\0", b"\xff", b"\n\n", b"abc", b"\r\n"]), max_size=60
).map(b"".join) | st.binary(max_size=200)
prefixes = st.sampled_from(["", "one", "two words", "ü", "x" * MAX_PREFIX]).map(encode_prefix)
limits = st.integers(1, 12) | st.just(DEFAULT_MAX_LINE)


@given(payloads, prefixes, limits, st.lists(st.integers(0, 400), max_size=20))
@example(b"abc\n", b"", 3, [3])
@example(b"abcd\n", b"", 3, [4])
@example(b"a\nabcd", b"one ", 3, [1, 1, 2, 5])
def test_answers_do_not_depend_on_the_cutting(
    received: bytes, prefix: bytes, limit: int, places: list[int]
) -> None:
    """Any chunks give the answers of the reference model, the error line included."""
    expected = reference(prefix, limit, received)
    assert converse(Framer(prefix, limit), [received]) == expected
    assert converse(Framer(prefix, limit), cut(received, places)) == expected


@given(payloads, prefixes, limits)
def test_answers_survive_the_hardest_cuttings(received: bytes, prefix: bytes, limit: int) -> None:
    """Single bytes, and cuts before and after every LF, change nothing."""
    expected = reference(prefix, limit, received)
    singles = [received[i : i + 1] for i in range(len(received))]
    assert converse(Framer(prefix, limit), singles) == expected
    feeds = [i for i in range(len(received)) if received[i : i + 1] == b"\n"]
    around = [place for feed in feeds for place in (feed, feed + 1)]
    assert converse(Framer(prefix, limit), cut(received, around)) == expected


@given(payloads, st.sampled_from(["one", "ü", "x" * MAX_PREFIX]).map(encode_prefix))
def test_stripping_the_prefixes_gives_the_input_back(received: bytes, prefix: bytes) -> None:
    """Nothing is lost, added or reordered."""
    framer = Framer(prefix)
    sent, _ = converse(framer, [received])
    *complete, rest = sent.split(b"\n")
    assert all(line.startswith(prefix) for line in complete)
    stripped = b"".join(line[len(prefix) :] + b"\n" for line in complete)
    assert stripped + rest.removeprefix(prefix) == received
    assert framer.lines == len(complete) + bool(rest)


class Conversation(RuleBasedStateMachine):
    """At every moment the framer has answered what the model says it owes."""

    def __init__(self) -> None:
        super().__init__()
        self.received = b""
        self.sent = b""
        self.over = False

    @initialize(prefix=prefixes, limit=limits)
    def connect(self, prefix: bytes, limit: int) -> None:
        """Start a conversation."""
        self.prefix, self.limit = prefix, limit
        self.framer = Framer(prefix, limit)

    @precondition(lambda self: not self.over)
    @rule(chunk=payloads)
    def feed(self, chunk: bytes) -> None:
        """Answer complete lines at once, and say truly whether a line has begun."""
        self.received += chunk
        try:
            self.sent += self.framer.feed(chunk)
        except LineTooLongError as error:
            self.sent += error.answer
            self.over = True
            assert reference(self.prefix, self.limit, self.received) == (self.sent, True)
            return
        complete = self.received[: self.received.rfind(b"\n") + 1]
        assert reference(self.prefix, self.limit, complete) == (self.sent, False)
        assert self.framer.partial == (complete != self.received)

    @precondition(lambda self: not self.over)
    @rule()
    def end(self) -> None:
        """Answer the rest at the end of file."""
        self.sent += self.framer.end()
        self.over = True
        assert reference(self.prefix, self.limit, self.received) == (self.sent, False)
        assert not self.framer.partial, "what is answered is not owed"

    @precondition(lambda self: self.over)
    @rule(chunk=payloads)
    def feed_after_the_end(self, chunk: bytes) -> None:
        """Answer nothing after an error line."""
        if self.sent.endswith(b"bytes\n"):
            assert self.framer.feed(chunk) == b""
            assert self.framer.end() == b""


TestConversation = Conversation.TestCase


@given(prefixes, st.integers(0, 3), st.data())
def test_an_answer_grows_within_its_bound(prefix: bytes, kind: int, data: st.DataObject) -> None:
    """Whatever one chunk holds, its answer stays under the bound that memory is planned by."""
    framer = Framer(prefix, 2 * DEFAULT_MAX_LINE)
    carried = data.draw(st.binary(max_size=100)).replace(b"\n", b"") if kind else b""
    framer.feed(carried)
    chunk = b"\n" * framer.chunk_size
    if kind == 2:
        chunk = b"x" * (framer.chunk_size - 1) + b"\n"
    answer = framer.feed(chunk)
    assert len(answer) <= MAX_ANSWER + len(carried)
    assert framer.chunk_size >= 1000, "a chunk of a reasonable size is still worth a receive"


def test_a_line_in_single_bytes_costs_no_more_than_its_length() -> None:
    """The bytes carried over are never copied or scanned again with each new one."""
    framer = Framer(b"", 1_000_000)
    for _ in range(1_000_000):
        framer.feed(b"x")
    assert framer.feed(b"\n") == b"x" * 1_000_000 + b"\n"


@pytest.mark.parametrize(
    ("received", "sent"),
    [
        (b"world\n", b"hello world\n"),
        (b"a\r\nb", b"hello a\r\nhello b"),
        (b"\n", b"hello \n"),
        (b"\0\xff\n", b"hello \0\xff\n"),
        (b"", b""),
        (b"x" * 65_536 + b"\n", b"hello " + b"x" * 65_536 + b"\n"),
        (b"a\n" + b"x" * 65_537, b"hello a\nerror: line longer than 65536 bytes\n"),
    ],
)
def test_the_examples_of_the_wire_contract(received: bytes, sent: bytes) -> None:
    """The cases that the README shows."""
    assert converse(Framer(encode_prefix("hello")), [received])[0] == sent


@pytest.mark.parametrize(
    ("prefix", "complaint"),
    [
        ("x" * 256, "at most 255 bytes of UTF-8, not 256"),
        ("ü" * 128, "at most 255 bytes of UTF-8, not 256"),
        ("a\nb", "control characters, found"),
        ("a\x7f", "control characters"),
        ("a\x9b", "control characters"),
        ("a\udcff", "valid UTF-8"),
    ],
)
def test_a_prefix_that_cannot_be_a_name_is_refused(prefix: str, complaint: str) -> None:
    """The error names the field and what would be right."""
    with pytest.raises(ConfigError, match=complaint) as caught:
        encode_prefix(prefix)
    assert caught.value.field == "prefix"


def test_the_framing_is_pure() -> None:
    """Importing it pulls in no I/O: no trio, no sockets."""
    code = (
        # What measures coverage has modules of its own, imported before.
        "import sys; before = set(sys.modules);"
        "import trio_echo.framing;"
        "print(sorted({'trio', 'socket', 'select', 'ssl', 'typer'} & (set(sys.modules) - before)))"
    )
    command = [sys.executable, "-I", "-c", code]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
