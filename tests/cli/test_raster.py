"""The picture as PNG."""

from __future__ import annotations

import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from trio_echo.cli import raster
from trio_echo.cli.app import run
from trio_echo.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

WITHOUT = "import sys; sys.modules['resvg_py'] = None; from trio_echo.cli import main; main()"
NOBODY = ("probe", "127.0.0.1:1")


@pytest.fixture
def _fonts() -> None:
    """Skip where the machine has none."""
    try:
        raster.check()
    except ConfigError as error:
        pytest.skip(str(error))


def size(png: bytes) -> tuple[int, int]:
    """Width and height, from the header."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack_from(">II", png, 16)
    return width, height


@pytest.mark.usefixtures("_fonts")
def test_it_is_drawn_beside_the_svg(tmp_path: Path) -> None:
    """Twice as large, for screens that show it small."""
    svg, png = tmp_path / "it.svg", tmp_path / "it.png"
    assert run([*NOBODY, "--svg", str(svg), "--png", str(png)]) == 4
    assert 'width="860"' in svg.read_text()
    assert size(png.read_bytes())[0] == 2 * 860


@pytest.mark.usefixtures("_fonts")
def test_it_goes_to_stdout_alone(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """The words are on stderr then."""
    assert run([*NOBODY, "--png", "-"]) == 4
    written = capsysbinary.readouterr()
    assert size(written.out)[0] == 2 * 860
    assert b"COULD NOT MEASURE" in written.err


def test_a_missing_package_has_a_remedy() -> None:
    """One line, before anything is measured."""
    command = [sys.executable, "-c", WITHOUT, *NOBODY, "--png", "it.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "trio-echo: --png: needs a package that is not installed: pip install resvg-py\n"
    )


def test_a_machine_without_fonts_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A picture without its words would look like one that says nothing."""
    monkeypatch.setitem(raster.FONTS, "skip_system_fonts", True)
    assert run([*NOBODY, "--png", "it.png"]) == 2
    assert "needs a font: install DejaVu Sans" in capsys.readouterr().err
