"""The verdict as JUnit XML, which CI systems show beside their other tests. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from trio_echo.prober import words
from trio_echo.prober.split import Verdict
from trio_echo.text import visible, xml_text

if TYPE_CHECKING:
    from trio_echo.prober.words import Report

__all__ = ["error_junit", "to_junit"]


def to_junit(report: Report) -> str:
    """One suite with one case: the split.

    FAIL and INCONCLUSIVE are failures: what was to be shown was not. What could
    not be measured, or was interrupted, is an error. Without an expectation the
    case is skipped, as nothing was tested.
    """
    result: tuple[str, str] | None = None
    if report.interrupted or report.verdict is Verdict.UNMEASURED:
        result = "error", "interrupted" if report.interrupted else f"{report.verdict}"
    elif report.verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE):
        result = "failure", f"{report.verdict}"
    elif report.verdict is None:
        result = "skipped", ""
    case = {"name": f"split of {visible(report.target)}", "time": f"{report.elapsed:.3f}"}
    root = _suite(case, result, words.headline(report), str(report))
    root[0].set("timestamp", report.began)
    return _text(root)


def error_junit(message: str, *, name: str = "split", interrupted: bool = False) -> str:
    """One suite with one case that ended in an error, in the place of a report.

    Args:
        message: why there is no report.
        name: of the case.
        interrupted: whether somebody stopped it.
    """
    kind = "interrupted" if interrupted else f"{Verdict.UNMEASURED}"
    said = visible(message)
    return _text(_suite({"name": visible(name), "time": "0.000"}, ("error", kind), said, said))


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
