"""The verdict as JUnit XML, which CI systems show beside their other tests. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from trio_echo.prober import words
from trio_echo.prober.split import Verdict
from trio_echo.text import visible, xml_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trio_echo.prober.words import Report

__all__ = ["error_junit", "several_junit", "to_junit"]


def several_junit(cases: Mapping[str, Report], aside: Sequence[str] = ()) -> str:
    """One suite with a case for each of several reports.

    Args:
        cases: the reports by the names of their cases.
        aside: lines of what else there is to say about all of them.
    """
    whole: ET.Element | None = None
    for name, report in cases.items():
        root = _of(report, name)
        if whole is None:
            whole = root
            continue
        suite, other = whole[0], root[0]
        suite.extend(other)
        for counter in ("tests", "failures", "errors", "skipped"):
            suite.set(counter, str(int(suite.get(counter, "0")) + int(other.get(counter, "0"))))
        suite.set("time", f"{float(suite.get('time', '0')) + report.elapsed:.3f}")
    assert whole is not None  # noqa: S101 - there is one report at least
    if aside:
        ET.SubElement(whole[0], "system-err").text = "\n".join(map(visible, aside))
    return _text(whole)


def to_junit(report: Report, name: str = "") -> str:
    """One suite with one case: the split.

    FAIL and INCONCLUSIVE are failures: what was to be shown was not. What could
    not be measured, or was interrupted, is an error. Without an expectation the
    case is skipped, as nothing was tested.

    Args:
        report: what was found.
        name: of the case; by default it has the target's.
    """
    return _text(_of(report, name or f"split of {report.target}"))


def _of(report: Report, name: str) -> ET.Element:
    """The document of one report."""
    result: tuple[str, str] | None = None
    if report.interrupted or report.verdict is Verdict.UNMEASURED:
        result = "error", "interrupted" if report.interrupted else f"{report.verdict}"
    elif report.verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE):
        result = "failure", f"{report.verdict}"
    elif report.verdict is None:
        result = "skipped", ""
    case = {"name": visible(name), "time": f"{report.elapsed:.3f}"}
    root = _suite(case, result, words.headline(report), str(report))
    root[0].set("timestamp", report.began)
    return root


def error_junit(
    message: str,
    *,
    name: str = "split",
    interrupted: bool = False,
    file: str = "",
    line: int | None = None,
) -> str:
    """One suite with one case that ended in an error, in the place of a report.

    Args:
        message: why there is no report.
        name: of the case.
        interrupted: whether somebody stopped it.
        file: that is wrong, where one is.
        line: in it.
    """
    kind = "interrupted" if interrupted else f"{Verdict.UNMEASURED}"
    said = visible(message)
    case = {"name": visible(name), "time": "0.000"}
    case |= {"file": visible(file)} if file else {}
    case |= {"line": str(line)} if line is not None else {}
    return _text(_suite(case, ("error", kind), said, said))


def _suite(
    attributes: dict[str, str], result: tuple[str, str] | None, message: str, text: str
) -> ET.Element:
    """A document of one case; `result` is its kind and type, None for a case that passed."""
    root = ET.Element("testsuites")
    suite = ET.SubElement(root, "testsuite", name="trio-echo probe", time=attributes["time"])
    case = ET.SubElement(suite, "testcase", classname="trio-echo.probe")
    case.attrib |= attributes
    kind, kind_type = result or ("", "")
    if kind:
        element = ET.SubElement(case, kind, message=message)
        if kind_type:
            element.set("type", kind_type)
            element.text = text
    ET.SubElement(case, "system-out").text = text
    kinds = {"failures": "failure", "errors": "error", "skipped": "skipped"}
    for counter, counted in {"tests": kind, **kinds}.items():
        suite.set(counter, str(int(counted == kind)))
    return root


def _text(root: ET.Element) -> str:
    """The document as XML can carry it."""
    for element in root.iter():
        element.attrib = {name: xml_text(value) for name, value in element.attrib.items()}
        element.text = element.text and xml_text(element.text)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
