"""What ``nox -s docs`` writes: the text of each file, by its path."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from documenting import options, states
from documenting.chart import chart

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["GENERATED"]

GENERATED: Mapping[Path, Callable[[], str]] = {
    Path("docs/options.md"): options.page,
    Path("docs/states.md"): states.page,
    Path("docs/pictures/benchmarks.svg"): chart,
}
