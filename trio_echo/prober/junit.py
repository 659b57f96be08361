"""The verdict as JUnit XML, which CI systems show beside their other tests."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from trio_echo.prober import words
from trio_echo.prober.split import Verdict
from trio_echo.text import printable, xml_text

if TYPE_CHECKING:
    from trio_echo.prober.report import Report

__all__ = ["to_junit"]


def to_junit(report: Report) -> str:
    """One suite with one case: the split.

    FAIL and INCONCLUSIVE are failures: what was to be shown was not. What could
    not be measured, or was interrupted, is an error. Without an expectation the
    case is skipped, as nothing was tested.
    """
    headline = words.headline(report)
    suite = ET.Element("testsuite", name="trio-echo probe", timestamp=report.began)
    case = ET.SubElement(
        suite,
        "testcase",
        classname="trio-echo.probe",
        name=f"split of {xml_text(printable(report.target))}",
        time=f"{report.elapsed:.3f}",
    )
    kind = None
    if report.interrupted or report.verdict is Verdict.UNMEASURED:
        kind = "error"
    elif report.verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE):
        kind = "failure"
    elif report.verdict is None:
        kind = "skipped"
    if kind is not None:
        result = ET.SubElement(case, kind, message=xml_text(headline))
        if kind != "skipped":
            result.set("type", "interrupted" if report.interrupted else f"{report.verdict}")
            result.text = xml_text(str(report))
    ET.SubElement(case, "system-out").text = xml_text(str(report))
    for counter, counted in (
        ("tests", True),
        ("failures", kind == "failure"),
        ("errors", kind == "error"),
        ("skipped", kind == "skipped"),
    ):
        suite.set(counter, str(int(counted)))
    suite.set("time", f"{report.elapsed:.3f}")
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
