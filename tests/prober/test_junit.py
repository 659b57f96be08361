"""The verdict as JUnit XML, read back as CI systems do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from junitparser import Error, Failure, JUnitXml, Skipped, TestSuite
from reports import drawn, made

from trio_echo.prober.counts import Outcome, Result
from trio_echo.prober.junit import to_junit

if TYPE_CHECKING:
    from trio_echo.prober.words import Report

EIGHTY_TWENTY = {"one": 80.0, "two": 20.0}


@pytest.mark.parametrize(
    ("report", "kind"),
    [
        (made(drawn(EIGHTY_TWENTY, 3000, 1), expect=EIGHTY_TWENTY), None),
        (made(["two"] * 60, expect=EIGHTY_TWENTY), Failure),
        (made(["one"], expect=EIGHTY_TWENTY), Failure),
        (made([Result(Outcome.REFUSED)], expect=EIGHTY_TWENTY), Error),
        (made(["one"]), Skipped),
        (made(["\x00\x1b\ud800\ufffe<&>"], target="\x01:9"), Skipped),
    ],
    ids=["pass", "fail", "inconclusive", "unmeasured", "no verdict", "hostile"],
)
def test_read_back(report: Report, kind: type | None) -> None:
    """One case, with the right kind of result and the report in words."""
    [suite] = JUnitXml.fromstring(to_junit(report).encode())
    assert isinstance(suite, TestSuite)
    [case] = suite
    assert [type(result) for result in case.result] == ([] if kind is None else [kind])
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (
        1,
        int(kind is Failure),
        int(kind is Error),
        int(kind is Skipped),
    )
    assert case.time == 1.5
    words = str(report).splitlines()[0].partition(" ")[0]
    assert str(case.system_out).startswith(words)
    if kind is not None:
        assert case.result[0].message.startswith(words)
