"""The README's figures are those that the trial printed."""

from __future__ import annotations

import re
from pathlib import Path

from documenting.pages import ROOT


def rows(page: str, head: str) -> list[list[float]]:
    """The percentages of each row of a table, by the beginning of its head."""
    text = (ROOT / Path(page)).read_text(encoding="utf-8")
    _, _, below = text.partition(f"| {head}")
    table, _, _ = below.partition("\n\n")
    found = [re.findall(r"\| +\**([\d.]+) %", line) for line in table.splitlines()[2:]]
    return [[float(figure) for figure in row] for row in found]


def test_the_readme_rounds_what_the_trial_printed() -> None:
    """All wrong splits; of the right one, what is computed stands for the probe."""
    said = rows("README.md", "asked, and what happens")
    printed = rows("docs/statistics.md", "called wrong by")
    columns = 0, 2, 3, 4  # the README leaves out the twenty requests
    assert [[round(row[column]) for column in columns] for row in printed[:4]] == said[:4]
    assert [round(printed[4][column]) for column in columns[:3]] == said[4][:3]
    computed = rows("docs/statistics.md", "asked ")
    assert round(computed[0][1], 2) == said[4][3]
