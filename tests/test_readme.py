"""The README's examples do what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import trio

README = Path(__file__).parent.parent / "README.md"


@pytest.mark.skipif(not README.exists(), reason="the tests run without the README here")
async def test_python_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests in the README are tests, and pass."""
    section = README.read_text(encoding="utf-8").partition("## From Python")[2]
    names: dict[str, Any] = {}
    for example in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        exec(compile(example, str(README), "exec"), names)  # noqa: S102 - the README is ours
    async with trio.open_nursery() as nursery:
        await names["test_my_balancer"](nursery)
        nursery.cancel_scope.cancel()
    monkeypatch.chdir(README.parent)
    await names["test_my_route"]()
