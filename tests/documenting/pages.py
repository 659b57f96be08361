"""The pages that people read, and what stands in them."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["PAGES", "ROOT", "blocks", "prose"]

ROOT = Path(__file__).parent.parent.parent

PAGES = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.md", "docs/*.md", "manifests/**/*.md", "tests/*/README.md")
    for path in ROOT.glob(pattern)
)
"""Relative to the root; none where the tests run without the pages."""


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(
        r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of one language, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
