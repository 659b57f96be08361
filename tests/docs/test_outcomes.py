"""The page on failures explains each of them."""

from __future__ import annotations

from documenting.pages import ROOT

from trio_echo.prober.counts import Outcome


def test_every_outcome_has_its_row() -> None:
    """All but the good one."""
    page = (ROOT / "docs" / "diagnosis.md").read_text(encoding="utf-8")
    rows = [f"| `{outcome}` |" for outcome in Outcome if outcome is not Outcome.OK]
    assert [row for row in rows if page.count(row) != 1] == []
