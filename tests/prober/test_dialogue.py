"""Who answered, told from bytes alone."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_echo.prober.counts import Outcome
from trio_echo.prober.dialogue import Echo, FailureError

NAMES = st.binary(max_size=255).filter(lambda name: b"\n" not in name)
ECHO = Echo("run", None)
LINE = ECHO.request(3, 1)


@given(name=NAMES, cut=st.integers(0, 400))
@example(name=b"", cut=0)
@example(name=b"\xff", cut=0)
def test_a_name_is_found_once_the_whole_line_is_there(name: bytes, cut: int) -> None:
    """Whatever bytes it has; a part of the answer is no answer yet, and no wrong one."""
    answer = name + b" " + LINE
    found = ECHO.answer(LINE).feed(answer)
    assert found is not None
    assert found.encode(errors="surrogateescape") == name
    assert ECHO.answer(LINE).feed(answer[: min(cut, len(answer) - 1)]) is None


@given(one=NAMES, other=NAMES)
def test_two_names_stay_two(one: bytes, other: bytes) -> None:
    """No decoding brings them together."""
    names = [ECHO.answer(LINE).feed(name + b" " + LINE) for name in (one, other)]
    assert (names[0] == names[1]) == (one == other)


@given(came=st.binary(max_size=300))
@example(came=LINE)
@example(came=b" " + LINE)
@example(came=b"x" * 256 + b" " + LINE)
@example(came=b"one " + LINE + b"\n")
@example(came=b"a\nb " + LINE)
def test_anything_else_is_wrong(came: bytes) -> None:
    """Only the line itself, or a name, a space and the line, is an answer."""
    name = came.removesuffix(b" " + LINE)
    right = came == LINE or (name != came and b"\n" not in name and len(name) <= 255)
    if not right and (b"\n" in came or len(came) > 255 + len(LINE)):
        with pytest.raises(FailureError) as wrong:
            ECHO.answer(LINE).feed(came)
        assert wrong.value.outcome is Outcome.WRONG_ECHO
    else:
        assert (ECHO.answer(LINE).feed(came) is not None) == right


@given(index=st.integers(0, 2**70), number=st.integers(0, 2**70), size=st.integers(32, 100))
def test_lines_are_as_long_as_asked_and_never_the_same(index: int, number: int, size: int) -> None:
    """A line carries the run, its connection and its own number."""
    sized = Echo("0123456789", size)
    line = sized.request(index, number)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert len(line) == max(size + 1, len(f"0123456789.{index:x}.{number:x}\n"))
    assert line not in {
        ECHO.request(index, number),
        Echo("0123456789", size).request(index, number + 1),
    }


@pytest.mark.parametrize(
    ("came", "outcome"), [(b"", Outcome.EOF_BEFORE_ANSWER), (b"on", Outcome.EOF_MID_LINE)]
)
def test_an_end_before_the_answer(came: bytes, outcome: Outcome) -> None:
    """What had come by then tells a closed door from a backend that died."""
    answer = ECHO.answer(LINE)
    if came:
        assert answer.feed(came) is None
    with pytest.raises(FailureError) as ended:
        answer.end()
    assert ended.value.outcome is outcome
