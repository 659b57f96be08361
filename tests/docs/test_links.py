"""Every link between the pages leads somewhere."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from documenting.pages import PAGES, ROOT, prose

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LINK = re.compile(
    r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\""
)


def links(page: Path) -> Iterator[str]:
    """Where a page's links and pictures lead."""
    for found in LINK.finditer(prose(page)):
        [link] = filter(None, found.groups())
        if not re.match("[a-z]+:", link):
            yield link


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives a page's headings."""
    headings = re.findall("^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_resolve(page: Path) -> None:
    """Each relative link names a file or folder, and a heading that the file has."""
    page = ROOT / page
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_index() -> None:
    """A page that nobody finds is no page."""
    index = ROOT / "docs" / "README.md"
    listed = {(index.parent / link).resolve() for link in links(index)}
    assert set((ROOT / "docs").glob("*.md")) - listed <= {index}


def test_every_folder_of_manifests_is_in_their_table() -> None:
    """Who looks at the folder finds out what each part is for."""
    folder = ROOT / "manifests"
    text = (folder / "README.md").read_text(encoding="utf-8")
    folders = [path.name for path in folder.iterdir() if path.is_dir()]
    assert [name for name in folders if f"| `{name}/` |" not in text] == []
