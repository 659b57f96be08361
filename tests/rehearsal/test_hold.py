"""A held route follows its manifests: edits are taken in, broken ones are told."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import trio
from manifest_texts import ISTIO, parse_once

from trio_echo.rehearsal import find_envoy, open_stage
from trio_echo.rehearsal.hold import follow_manifests
from trio_echo.rehearsal.kustomize import read_manifests
from trio_echo.rehearsal.plan import make_plan

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pytest

    from trio_echo.errors import TrioEchoError
    from trio_echo.rehearsal import Route
    from trio_echo.rehearsal.stage import Stage


class Manifest:
    """One file, and what is heard of its edits."""

    def __init__(self, path: Path) -> None:
        """Write the demonstration to `path`."""
        self.path = path
        self.path.write_text(ISTIO)
        self.shifted = trio.Event()
        self.refused: list[str] = []
        self.heard = trio.Event()

    def read(self) -> tuple[Route, Iterable[Path]]:
        """Read it as the command does."""
        found = read_manifests([str(self.path)])
        return make_plan(found.documents, parse_once).route, found.files

    def on_shift(self) -> None:
        """A new route is up."""
        self.heard.set()

    def on_refusal(self, error: TrioEchoError) -> None:
        """An edit was not taken."""
        self.refused.append(str(error))
        self.heard.set()

    async def follow(self, stage: Stage, said: tuple[Route, Iterable[Path]]) -> None:
        """Follow it, and hear what becomes of its edits."""
        await follow_manifests(
            stage, self.read, said, shifted=self.on_shift, refused=self.on_refusal
        )

    async def edit(self, old: str, new: str) -> None:
        """Edit the file as an editor does, and wait until that was noticed."""
        text = self.path.read_text()
        assert old in text
        self.heard = trio.Event()
        draft = self.path.with_suffix(".draft")
        draft.write_text(text.replace(old, new))
        draft.replace(self.path)
        with trio.fail_after(20):
            await self.heard.wait()


async def test_edits_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New weights are up after an edit, a broken edit changes nothing, the next good one does."""
    monkeypatch.setattr("trio_echo.rehearsal.hold._LOOK", 0.02)
    manifest = Manifest(tmp_path / "route.yaml")
    route, files = manifest.read()
    async with open_stage(route, find_envoy()) as stage, trio.open_nursery() as nursery:
        nursery.start_soon(manifest.follow, stage, (route, files))
        await manifest.edit("weight: 80", "weight: 0")
        (listener,) = stage.route.listeners
        assert stage.route.shares(listener.chains[0]) == {"one": 0, "two": 20}
        good = stage.route
        await manifest.edit("weight: 20", "wait: 20")
        assert "spec.tcp[0].route[1].wait" in manifest.refused[-1]
        await manifest.edit("wait: 20", "[ broken")
        assert "route.yaml:" in manifest.refused[-1]
        assert stage.route is good
        await manifest.edit("[ broken", "weight: 7")
        assert stage.route.shares(stage.route.listeners[0].chains[0]) == {"one": 0, "two": 7}
        manifest.heard = trio.Event()
        manifest.path.unlink()
        with trio.fail_after(20):
            await manifest.heard.wait()
        assert "No such file" in manifest.refused[-1]
        manifest.heard = trio.Event()
        manifest.path.write_text(ISTIO)
        with trio.fail_after(20):
            await manifest.heard.wait()
        assert stage.route.shares(stage.route.listeners[0].chains[0]) == {"one": 80, "two": 20}
        nursery.cancel_scope.cancel()


async def test_a_file_caught_half_written_at_the_first_look_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the route was read from is watched, also where it cannot be read any more."""
    monkeypatch.setattr("trio_echo.rehearsal.hold._LOOK", 0.02)
    manifest = Manifest(tmp_path / "route.yaml")
    route, files = manifest.read()
    async with open_stage(route, find_envoy()) as stage, trio.open_nursery() as nursery:
        manifest.path.write_text("")
        nursery.start_soon(manifest.follow, stage, (route, files))
        with trio.fail_after(20):
            await manifest.heard.wait()
        assert "no route found" in manifest.refused[-1]
        manifest.path.write_text(ISTIO.replace("weight: 80", "weight: 0"))
        while stage.route is route:  # it may be caught half written once more
            manifest.heard = trio.Event()
            with trio.fail_after(20):
                await manifest.heard.wait()
        assert stage.route.shares(stage.route.listeners[0].chains[0]) == {"one": 0, "two": 20}
        nursery.cancel_scope.cancel()


async def test_nothing_is_done_where_nothing_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither at the first look, which reads all the same, nor at later ones, which do not."""
    monkeypatch.setattr("trio_echo.rehearsal.hold._LOOK", 0.02)
    manifest = Manifest(tmp_path / "route.yaml")
    route, files = manifest.read()
    reads = 0
    looked: trio.Event = trio.Event()
    looks = 0

    def read() -> tuple[Route, Iterable[Path]]:
        nonlocal reads
        reads += 1
        return route, files

    def fingerprint(watched: set[Path]) -> set[Path]:
        nonlocal looks
        looks += 1
        if looks == 4:
            trio.from_thread.run_sync(looked.set)
        return set(watched)

    monkeypatch.setattr("trio_echo.rehearsal.hold._fingerprint", fingerprint)
    monkeypatch.setattr(manifest, "read", read)
    async with open_stage(route, find_envoy()) as stage, trio.open_nursery() as nursery:
        nursery.start_soon(manifest.follow, stage, (route, files))
        with trio.fail_after(20):
            await looked.wait()
        nursery.cancel_scope.cancel()
    assert reads == 1
    assert not manifest.heard.is_set()


async def test_what_is_up_stays_until_the_manifests_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a walk the route has other weights than its manifests; that is no edit of them."""
    monkeypatch.setattr("trio_echo.rehearsal.hold._LOOK", 0.02)
    manifest = Manifest(tmp_path / "route.yaml")
    route, files = manifest.read()
    (listener,) = route.listeners
    (chain,) = listener.chains
    walked = replace(route, listeners=(replace(listener, chains=(chain.weighted((0, 1)),)),))
    looked = trio.Event()

    def read() -> tuple[Route, Iterable[Path]]:
        found = Manifest.read(manifest)
        trio.from_thread.run_sync(looked.set)
        return found

    monkeypatch.setattr(manifest, "read", read)
    async with open_stage(route, find_envoy()) as stage, trio.open_nursery() as nursery:
        await stage.change(walked)
        nursery.start_soon(manifest.follow, stage, (route, files))
        await looked.wait()
        await manifest.edit("weight: 80", "wait: 80")
        assert "spec.tcp[0].route[0].wait" in manifest.refused[-1]
        await manifest.edit("wait: 80", "[ broken")
        assert stage.route is walked
        await manifest.edit("[ broken", "weight: 60")
        assert stage.route.shares(stage.route.listeners[0].chains[0]) == {"one": 60, "two": 20}
        nursery.cancel_scope.cancel()
