"""What GitHub shows is what was meant, whatever backends call themselves."""

from __future__ import annotations

import json
from itertools import pairwise
from xml.etree import ElementTree as ET

from github_runner import Command, obeyed
from hostile import PIECES, hostile_text
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from reports import drawn, made

from trio_echo.prober import words
from trio_echo.prober.counts import Outcome, Result
from trio_echo.prober.document import to_json
from trio_echo.prober.github import annotation, complaints, summary
from trio_echo.prober.junit import to_junit
from trio_echo.text import harmless, visible

ORDERS = (
    "::error::",
    "  ::set-output name=verdict::PASS",
    "\n::add-mask::PASS\n",
    "##[stop-commands]x",
    "#",
    "[",
    "::",
    ":",
    ",title=",
    "%0A",
    "%250A",
    "%3A",
)
MARKUP = (
    "|",
    "`",
    "```\n",
    "**",
    "![a](https://tracker.test/a.png)",
    "https://evil.test",
    "www.evil.test",
    "\n# ",
    "\n---\n",
    "- ",
    "1. ",
    "    ",
    "<!--",
    "&lt;",
    "@octocat",
)


def orders() -> st.SearchStrategy[str]:
    """Texts that the runner or a reader of Markdown would obey."""
    pieces = st.sampled_from((*ORDERS, *MARKUP, *PIECES))
    return st.lists(pieces, max_size=6).map("".join)


@given(message=orders(), title=orders(), file=orders(), line=st.none() | st.integers(1, 10**6))
def test_an_annotation_arrives_as_it_was_meant(
    message: str, title: str, file: str, line: int | None
) -> None:
    """In one line; the runner reads the same file, line, title and text."""
    written = annotation("error", message, title=title, file=file, line=line)
    assert visible(written) == written
    [(name, properties, text)] = obeyed(written)
    assert name == "error"
    assert text == "\n".join(map(visible, message.split("\n")))
    shown = {"file": file, "line": "" if line is None else f"{line}", "title": title}
    # The runner strips blanks behind the last.
    assert {key: value.strip() for key, value in properties.items()} == {
        key: "\n".join(map(visible, value.split("\n"))).strip()
        for key, value in shown.items()
        if value.strip()
    }


@given(text=orders())
@example("::error::\r::error::")
def test_nothing_else_is_obeyed(text: str) -> None:
    """In words, in JSON and in XML, which say the same as before."""
    assert not obeyed(harmless(text))
    document = json.dumps({"name": text}, indent=1)
    assert not obeyed(harmless(document, "json"))
    assert json.loads(harmless(document, "json")) == json.loads(document)
    report = made([text] * 3)
    assert not obeyed(harmless(to_json(report), "json"))
    document = to_junit(report)
    assert not obeyed(harmless(document, "xml"))
    assert ET.canonicalize(harmless(document, "xml")) == ET.canonicalize(document)


@given(names=st.lists(orders() | hostile_text(), min_size=1, max_size=4), case=orders())
def test_a_name_is_no_markdown(names: list[str], case: str) -> None:
    """The summary is headings, lists and a table; each cell is what the words say."""
    report = made(names * 3, expect={names[0]: 1}, max_errors=9)
    written = summary({case: report}, [case])
    tokens = MarkdownIt("gfm-like").parse(written)
    within = {
        child.type for token in tokens if token.type == "inline" for child in token.children or ()
    }
    assert within <= {"text", "text_special"}
    kinds = {token.type.rpartition("_")[0] for token in tokens if token.type != "inline"}
    assert kinds <= {
        *("heading", "paragraph", "bullet_list", "list_item"),
        *("table", "thead", "tbody", "tr", "th", "td"),
    }
    cells = [
        "".join(child.content for child in after.children or ())
        for token, after in pairwise(tokens)
        if token.type in {"th_open", "td_open"}
    ]
    assert cells == [cell.strip() for row in words.shares(report) for cell in row]


def test_a_verdict_is_annotated_unless_it_is_a_pass() -> None:
    """FAIL and what could not be measured as errors, INCONCLUSIVE as a warning."""
    expect = {"one": 80, "two": 20}
    cases = {
        "right": made(drawn({"one": 80, "two": 20}, 3000, 1), expect=expect),
        "wrong": made(drawn({"one": 50, "two": 50}, 3000, 1), expect=expect),
        "short": made(["one", "two"], expect=expect),
        "none": made(["one"]),
        "": made(["one"], expect=expect).unmeasured("they do not agree"),
    }
    first, second, third, last = obeyed("\n".join(complaints(cases, "lost: 2\n100 %")))
    assert first == Command("error", {"title": "trio-echo: wrong"}, first.text)
    assert first.text.splitlines()[0] == words.headline(cases["wrong"])
    assert "the true share is" in first.text.splitlines()[1]
    assert (second.name, second.properties["title"]) == ("warning", "trio-echo: short")
    assert (third.name, third.properties["title"]) == ("error", "trio-echo")
    assert last == Command("error", {"title": "trio-echo"}, "lost: 2\n100 %")


def test_where_nothing_answered_there_is_no_table() -> None:
    """What happened instead is said."""
    written = summary({"": made([Result(Outcome.RESET, detail="reset")] * 3, expect={"one": 1})})
    assert "|" not in written
    assert "COULD NOT MEASURE" in written
    assert "\n- " in written


def test_a_table_of_many_backends_is_cut() -> None:
    """GitHub refuses a summary that is too long."""
    written = summary({"": made([f"backend {number}" for number in range(60)])})
    assert written.count("| backend ") == 51
    assert "\nand 10 more\n" in written
