"""The tests that the pages show are tests, and pass."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
from documenting.pages import ROOT, blocks

if TYPE_CHECKING:
    import pytest


async def test_python_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the README and of docs/python.md; one of them stands in both."""
    names: dict[str, Any] = {}
    for page in ("README.md", "docs/python.md"):
        for example in blocks(Path(page), "python"):
            exec(compile(example, page, "exec"), names)  # noqa: S102 - the page is ours
    async with trio.open_nursery() as nursery:
        await names["test_my_balancer"](nursery)
        nursery.cancel_scope.cancel()
    monkeypatch.chdir(ROOT)
    await names["test_my_route"]()


def test_the_fixtures_without_pytest() -> None:
    """The last example of docs/pytest.md."""
    example = blocks(Path("docs/pytest.md"), "python")[-1]
    exec(compile(example, "docs/pytest.md", "exec"), {})  # noqa: S102 - the page is ours
