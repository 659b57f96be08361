"""What must agree in a release: its version, wherever it is written, and what its workflow runs."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
VERSION = PROJECT["version"]

IMAGE = re.compile(r"trio-echo:(\d+\.\d+\.\d+)|newTag: (\S+)")


def test_the_version_has_one_source() -> None:
    """The package has that of pyproject.toml; the changelog, each page and manifest name it too."""
    assert version("trio-echo") == VERSION
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall("^## ([0-9.]+)", changes, re.MULTILINE)[0] == VERSION
    named = {
        path.relative_to(ROOT): set(map("".join, IMAGE.findall(path.read_text(encoding="utf-8"))))
        for pattern in ("*.md", "docs/*.md", "container/Containerfile", "manifests/**/*.*")
        for path in ROOT.glob(pattern)
    }
    named = {path: tags for path, tags in named.items() if tags}
    assert Path("manifests/shared/kustomization.yaml") in named
    assert {path: tags for path, tags in named.items() if tags != {VERSION}} == {}


@pytest.mark.parametrize("workflow", sorted(ROOT.glob(".github/workflows/*.yml")), ids=str)
def test_actions_are_pinned(workflow: Path) -> None:
    """By the digest of a commit, which nobody can move, with the version beside it."""
    used = re.findall(r"uses: (.*)", workflow.read_text(encoding="utf-8"))
    pinned = r"\./|[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+"
    assert [each for each in used if not re.fullmatch(pinned, each)] == []
