"""Each console block runs as it stands, and prints what the page shows.

Those of ``manifests/README.md`` need a cluster: ``nox -s cluster`` runs them.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from documenting.console import ALONE, commands, differences, fits
from documenting.pages import PAGES, blocks

SHOWN = [
    page for page in PAGES if page.parent in {Path(), Path("docs")} and blocks(page, "console")
]
"""The pages with console blocks that need no cluster."""


@pytest.mark.skipif(ALONE is None, reason="needs root, or user namespaces, for a network")
@pytest.mark.parametrize("page", SHOWN, ids=str)
def test_a_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    """Of right splits one in a thousand FAILs: a page that prints something else runs again."""
    for name in ("nc", "curl"):
        if any(f"{name} " in each.text for each in commands(page)) and not shutil.which(name):
            pytest.skip(f"the page runs {name}, which is not installed")
    (tmp_path / "once").mkdir()
    (tmp_path / "twice").mkdir()
    if differences(page, tmp_path / "once"):
        again = differences(page, tmp_path / "twice")
        assert not again, "\n".join(again)


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("one 80 %, 1308 in 505 ms; no", "one 80 %, 97 in 1.2 s; no\n", True),
        ("one 80 %, 1308 in 505 ms", "one 20 %, 1308 in 505 ms\n", False),
        ("one  20.0 %  12 ms", "one     8 %   -\n", True),
        ("exit code 1", "exit code 0\n", False),
        ("one world", "one world\ntwo world\n", False),
        ("one world\n...", "one world\ntwo world\n", True),
        ("PASS: ... as expected", "PASS: 127.0.0.1:9 splits as expected\n", True),
        ("a note\none world", "one world\n", True),
        ("another note\none world", "one world\n", False),
    ],
)
def test_what_counts_as_the_same(shown: str, printed: str, same: bool) -> None:
    """Figures may differ, and nothing else; a note may stand on standard error."""
    assert fits(shown.splitlines(), printed, "a note\n") is same
