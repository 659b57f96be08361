"""Names and texts as an enemy would choose them, for every test of what is shown."""

from __future__ import annotations

from hypothesis import strategies as st

__all__ = ["PIECES", "hostile_text"]

PIECES = (
    "\x1b[2J",  # clears the screen
    "\x1b]0;title\x07",  # names the window
    "\x9b31m",  # C1: colours, on some terminals
    "\x85",
    "\x00",
    "\x7f",
    "\r",
    "\n",
    "\t",
    "\x0c",
    "\u2028",  # ends a line
    "\u2029",
    "\u202e",  # writes from right to left
    "\u2066",
    "\u200b",  # has no width
    "\u200d",
    "\ufeff",
    "\u3164",  # looks like nothing
    "\ufe0f",
    "\ufffe",  # no XML can carry it
    "\ud800",
    "\udcff",  # a byte that was no UTF-8
    "\U000e0001",
    "\\",
    r"\x1b",  # what an escape looks like
    r"\n",
    "<b a='x'>&amp;\"]]>",
    "{braces}",
    "[bold]markup[/]",
    "%s",
    "::error::",
    " ",
    "one",
    "zwölf 世界",
)


def hostile_text(*, min_size: int = 0) -> st.SearchStrategy[str]:
    """Several such pieces, one behind the other."""
    return st.lists(st.sampled_from(PIECES), min_size=min_size, max_size=6).map("".join)
