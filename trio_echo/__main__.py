"""``python -m trio_echo`` is the command ``trio-echo``."""

from __future__ import annotations

from trio_echo.cli import main

main()
