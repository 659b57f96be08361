"""What the pages take from the code is as the code has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from documenting.generated import GENERATED
from documenting.pages import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("path", GENERATED, ids=str)
def test_what_is_generated_is_not_stale(path: Path) -> None:
    """After a change of the command line, ``nox -s docs`` writes the page anew."""
    assert (ROOT / path).read_text(encoding="utf-8") == GENERATED[path](), "run: nox -s docs"
