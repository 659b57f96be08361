"""The README's examples do what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import trio

README = Path(__file__).parent.parent / "README.md"


@pytest.mark.skipif(not README.exists(), reason="the tests run without the README here")
async def test_python_example() -> None:
    """The test in the README is a test, and passes."""
    section = README.read_text(encoding="utf-8").partition("## From Python")[2]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {}
    exec(compile(found[1], str(README), "exec"), names)  # noqa: S102 - the README is ours
    async with trio.open_nursery() as nursery:
        await names["test_my_balancer"](nursery)
        nursery.cancel_scope.cancel()
