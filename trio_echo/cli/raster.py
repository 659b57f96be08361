"""A picture as PNG, for chats and tickets that show no SVG: light, at twice its size."""

from __future__ import annotations

from typing import Any

from trio_echo.errors import ConfigError
from trio_echo.prober.picture import Canvas

__all__ = ["FONTS", "check", "to_png"]

FONTS: dict[str, Any] = {}
"""Where the renderer finds fonts, as it has it; by itself where the system keeps them."""


def check() -> None:
    """Find out before anything is measured whether a picture can be made.

    Raises:
        ConfigError: the renderer is not installed, or has no font.
    """
    try:
        drawn, empty = to_png(_word("trio-echo")), to_png(_word(""))
    except ModuleNotFoundError:
        reason = "needs a package that is not installed: pip install resvg-py"
        raise ConfigError("png", reason) from None
    if drawn == empty:
        raise ConfigError("png", "needs a font: install DejaVu Sans")


def _word(word: str) -> str:
    """A picture of one word."""
    canvas = Canvas(100, "", "")
    canvas.text(0, 20, word)
    return canvas.finish(30)


def to_png(svg: str) -> bytes:
    """Draw a picture of ours. It loads nothing from anywhere but fonts."""
    import resvg_py  # noqa: PLC0415 - an extra

    return resvg_py.svg_to_bytes(svg_string=svg, zoom=2, **FONTS)
