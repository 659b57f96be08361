"""The tests that the pages show are tests, and pass."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
from documenting.pages import ROOT, blocks

from trio_echo.testing import echo_backend, split_probe

if TYPE_CHECKING:
    import pytest


def test_the_readme() -> None:
    """It passes as it stands; these tests run without the plugin that has its fixtures."""
    names: dict[str, Any] = {}
    [example] = blocks(Path("README.md"), "python")
    exec(compile(example, "README.md", "exec"), names)  # noqa: S102 - the page is ours
    with ExitStack() as stack:
        names["test_my_split"](lambda name: stack.enter_context(echo_backend(name)), split_probe)


async def test_python_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of docs/python.md."""
    names: dict[str, Any] = {}
    for example in blocks(Path("docs/python.md"), "python"):
        exec(compile(example, "docs/python.md", "exec"), names)  # noqa: S102 - the page is ours
    async with trio.open_nursery() as nursery:
        await names["test_my_balancer"](nursery)
        nursery.cancel_scope.cancel()
    monkeypatch.chdir(ROOT)
    await names["test_my_route"]()


def test_the_fixtures_without_pytest() -> None:
    """The last example of docs/pytest.md."""
    example = blocks(Path("docs/pytest.md"), "python")[-1]
    exec(compile(example, "docs/pytest.md", "exec"), {})  # noqa: S102 - the page is ours
