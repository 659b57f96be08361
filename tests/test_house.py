"""What the modules say of themselves holds."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import trio_echo

ROOT = Path(__file__).parents[1]
PACKAGE = Path(trio_echo.__file__).parent


def claims() -> list[str]:
    """The modules whose docstring says that they are pure."""
    found = []
    for path in sorted(PACKAGE.rglob("[!_]*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        if re.search(r"\bpure\b", docstring, re.IGNORECASE):
            found.append(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
    return found


def test_who_says_pure_is_held_to_it() -> None:
    """Import-linter holds those that it is told of; so it is told of all."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    [held] = [each["source_modules"] for each in contracts if each["type"] == "forbidden"]
    assert held == sorted(held)
    assert set(claims()) <= set(held)
    for module in held:
        assert (PACKAGE.parent / Path(*module.split("."))).with_suffix(".py").exists(), module


def test_pure_modules_load_no_trio() -> None:
    """Each can be used alone, in a program without sockets."""
    code = f"""
import importlib, sys
before = set(sys.modules)
for module in {claims()!r}:
    importlib.import_module(module)
print(*sorted(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "trio_echo.prober.split" in loaded
    assert not loaded & {"trio", "socket", "ssl", "structlog", "rich", "typer"}
