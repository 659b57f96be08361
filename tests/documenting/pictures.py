"""Draw the pictures of the pages from real runs: ``nox -s pictures``.

Each run has a real Envoy. Every picture is light, or dark where its reader prefers that.
"""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from documenting.console import alone
from documenting.pages import ROOT
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["main"]

PICTURES = ROOT / "docs" / "pictures"
COMMAND = Path(sys.executable).parent / "trio-echo"
MANIFESTS = ("manifests/base", "manifests/istio")

LIGHT = TerminalTheme(
    (246, 248, 250),
    (31, 35, 40),
    [(31, 35, 40), (207, 34, 46), (26, 127, 55), (154, 103, 0)],
)
DARK = TerminalTheme(
    (22, 27, 34),
    (230, 237, 243),
    [(230, 237, 243), (248, 81, 73), (63, 185, 80), (210, 153, 34)],
)
"""Ground, text, and what stands for black, red, green and yellow: as the other pictures have it."""

FORMAT = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<title>trio-echo probe in a terminal</title>
<style>
.{unique_id}-matrix {{ font: {char_height}px ui-monospace, Menlo, Consolas, monospace }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""Rich's own loads a font from elsewhere."""


def main() -> None:
    """Make all of them."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "manifests", folder / "manifests")
        draw_report(folder)
        draw_shift(folder)
        draw_terminal(folder)
        draw_watch(folder)


def run(folder: Path, *arguments: str) -> None:
    """Run a command to its end."""
    subprocess.run([COMMAND, *arguments], cwd=folder, check=True)


@contextmanager
def route(folder: Path, *arguments: str) -> Iterator[None]:
    """Keep the route of the manifests up."""
    with subprocess.Popen(
        [COMMAND, "rehearse", *MANIFESTS, "--hold", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert any(line.startswith("holding") for line in process.stdout)
        yield
        process.terminate()


def draw_report(folder: Path) -> None:
    """A probe of 80/20."""
    run(folder, "rehearse", *MANIFESTS, "--svg", str(PICTURES / "report.svg"))


def draw_shift(folder: Path) -> None:
    """Three steps, and what becomes of open connections after each."""
    steps = ("--shift", "100/0,80/20,0/100", "--drain", "1")
    run(folder, "rehearse", *MANIFESTS, *steps, "--svg", str(PICTURES / "shift.svg"))


def draw_watch(folder: Path) -> None:
    """A watch whose split is edited after a third of the time."""
    with route(folder, "--drain", "5"):
        watch: list[str | Path] = [
            COMMAND,
            "watch",
            "localhost:31400",
            "--expect",
            "one=80,two=20",
            "--hold",
            "5",
        ]
        watch += ["--rate", "40", "--duration", "45", "--svg", str(PICTURES / "watch.svg")]
        with subprocess.Popen(watch):
            time.sleep(15)
            edited = folder / "manifests" / "istio" / "virtual-service.yaml"
            text = edited.read_text(encoding="utf-8")
            edited.write_text(
                text.replace("weight: 80", "weight: 60").replace("weight: 20", "weight: 40"),
                encoding="utf-8",
            )


def draw_terminal(folder: Path) -> None:
    """What a terminal shows of a PASS and of a FAIL."""
    shown = Text()
    with route(folder):
        for expected in ("one=80,two=20", "one=50,two=50"):
            words = ["probe", "localhost:31400", "--expect", expected]
            shown.append(f"$ trio-echo {' '.join(words)}\n", style="bold")
            shown.append_text(Text.from_ansi(on_a_terminal(COMMAND, *words)))
            shown.append("\n")
    shown.rstrip()
    (PICTURES / "terminal.svg").write_text(to_svg(shown), encoding="utf-8")


def on_a_terminal(*command: str | Path) -> str:
    """What a command writes to a terminal, its colours included; not the live tally."""
    ours, its = pty.openpty()
    with subprocess.Popen(command, stdout=its, stderr=subprocess.DEVNULL):
        os.close(its)
        written = b""
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # Linux's end of file for a terminal
                break
            written += chunk
    os.close(ours)
    return written.decode().replace("\r\n", "\n")


def to_svg(shown: Text) -> str:
    """Rich's picture of a terminal, light and dark, in a font of the reader's."""
    svg, light = _export(shown, LIGHT)
    _, dark = _export(shown, DARK)
    return svg.replace(
        "</style>", f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n</style>"
    )


def _export(shown: Text, theme: TerminalTheme) -> tuple[str, str]:
    """The picture without its colours, and its style sheet."""
    width = max(map(len, shown.plain.splitlines())) + 1
    console = Console(record=True, width=width, file=StringIO())
    console.print(shown)
    svg = console.export_svg(title="", theme=theme, code_format=FORMAT, unique_id="t")
    svg = re.sub('<rect fill="[^"]*" stroke="[^"]*"', '<rect class="ground"', svg)
    rules = re.findall(r"^\.t-r\d+ {.*}$", svg, re.MULTILINE)
    svg = re.sub(r"^\.t-r\d+ {.*}\n", "", svg, flags=re.MULTILINE)
    return svg, "\n".join([*rules, f".ground {{ fill: {theme.background_color.hex} }}"])


if __name__ == "__main__":
    if sys.argv[1:]:
        main()
    else:
        subprocess.run(alone(sys.executable, "-m", "documenting.pictures", "here"), check=True)
