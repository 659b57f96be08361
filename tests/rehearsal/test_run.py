"""A held route follows its manifests: edits are taken in, broken ones are told."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import trio
from manifest_texts import ISTIO, parse_once

from trio_echo.prober.config import ProbeConfig
from trio_echo.rehearsal.process import find_envoy
from trio_echo.rehearsal.route import Notice, Route
from trio_echo.rehearsal.run import Events, _Conductor, follow, read_plan
from trio_echo.rehearsal.testbed import open_testbed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pytest
    from trio.testing import MockClock

    from trio_echo.errors import TrioEchoError
    from trio_echo.rehearsal.route import Plan
    from trio_echo.rehearsal.testbed import Testbed


class Manifest:
    """One file, and what is heard of its edits."""

    def __init__(self, path: Path) -> None:
        """Write the demonstration to `path`."""
        self.path = path
        self.path.write_text(ISTIO)
        self.shifted = trio.Event()
        self.refused: list[str] = []
        self.heard = trio.Event()

    def read(self) -> Plan:
        """Read it as the command does after an edit."""
        return read_plan([str(self.path)], parse_once, again=True)

    def on_shift(self) -> None:
        """A new route is up."""
        self.heard.set()

    def on_refusal(self, error: TrioEchoError) -> None:
        """An edit was not taken."""
        self.refused.append(str(error))
        self.heard.set()

    async def follow(self, testbed: Testbed, said: Plan) -> None:
        """Follow it, and hear what becomes of its edits."""
        await follow(testbed, self.read, said, shifted=self.on_shift, refused=self.on_refusal)

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
    monkeypatch.setattr("trio_echo.rehearsal.run._LOOK", 0.02)
    manifest = Manifest(tmp_path / "route.yaml")
    said = manifest.read()
    route = said.route
    async with open_testbed(route, find_envoy()) as testbed, trio.open_nursery() as nursery:
        nursery.start_soon(manifest.follow, testbed, said)
        await manifest.edit("weight: 80", "weight: 0")
        (listener,) = testbed.route.listeners
        assert testbed.route.shares(listener.chains[0]) == {"one": 0, "two": 20}
        good = testbed.route
        await manifest.edit("weight: 20", "wait: 20")
        assert "spec.tcp[0].route[1].wait" in manifest.refused[-1]
        await manifest.edit("wait: 20", "[ broken")
        assert "route.yaml:" in manifest.refused[-1]
        assert testbed.route is good
        await manifest.edit("[ broken", "weight: 7")
        assert testbed.route.shares(testbed.route.listeners[0].chains[0]) == {"one": 0, "two": 7}
        manifest.heard = trio.Event()
        manifest.path.unlink()
        with trio.fail_after(20):
            await manifest.heard.wait()
        assert not testbed.route.listeners
        manifest.heard = trio.Event()
        manifest.path.write_text(ISTIO)
        with trio.fail_after(20):
            await manifest.heard.wait()
        assert testbed.route.shares(testbed.route.listeners[0].chains[0]) == {"one": 80, "two": 20}
        nursery.cancel_scope.cancel()


async def test_a_file_caught_half_written_at_the_first_look_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the route was read from is watched, also where it cannot be read any more."""
    monkeypatch.setattr("trio_echo.rehearsal.run._LOOK", 0.02)
    manifest = Manifest(tmp_path / "route.yaml")
    said = manifest.read()
    route = said.route
    async with open_testbed(route, find_envoy()) as testbed, trio.open_nursery() as nursery:
        manifest.path.write_text("")
        nursery.start_soon(manifest.follow, testbed, said)
        with trio.fail_after(20):
            await manifest.heard.wait()
        assert not testbed.route.listeners  # it was so at the second look too
        manifest.path.write_text(ISTIO.replace("weight: 80", "weight: 0"))
        while not testbed.route.listeners:  # it may be caught half written once more
            manifest.heard = trio.Event()
            with trio.fail_after(20):
                await manifest.heard.wait()
        assert testbed.route.shares(testbed.route.listeners[0].chains[0]) == {"one": 0, "two": 20}
        nursery.cancel_scope.cancel()


async def test_nothing_is_done_where_nothing_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither at the first look, which reads all the same, nor at later ones, which do not."""
    monkeypatch.setattr("trio_echo.rehearsal.run._LOOK", 0.02)
    manifest = Manifest(tmp_path / "route.yaml")
    said = manifest.read()
    route = said.route
    reads = 0
    looked: trio.Event = trio.Event()
    looks = 0

    def read() -> Plan:
        nonlocal reads
        reads += 1
        return said

    def fingerprint(watched: set[Path]) -> dict[Path, int]:
        nonlocal looks
        looks += 1
        if looks == 4:
            trio.from_thread.run_sync(looked.set)
        return dict.fromkeys(watched, 0)

    monkeypatch.setattr("trio_echo.rehearsal.run._fingerprint", fingerprint)
    monkeypatch.setattr(manifest, "read", read)
    async with open_testbed(route, find_envoy()) as testbed, trio.open_nursery() as nursery:
        nursery.start_soon(manifest.follow, testbed, said)
        with trio.fail_after(20):
            await looked.wait()
        nursery.cancel_scope.cancel()
    assert reads == 1
    assert not manifest.heard.is_set()


async def test_what_is_gone_for_a_moment_stays_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An editor that empties a file and fills it again closes no port."""
    monkeypatch.setattr("trio_echo.rehearsal.run._LOOK", 0)
    manifest = Manifest(tmp_path / "route.yaml")
    said = manifest.read()
    empty = replace(said, route=Route(listeners=(), backends=()))
    plans = [said, empty, said, empty, empty]
    prints = iter([0, 1, 2, 2, 3, 3])
    changes: list[tuple[int, Route]] = []

    class Changing:
        """What is asked to change, and after how many readings."""

        async def change(self, route: Route) -> None:
            """Keep the route."""
            changes.append((5 - len(plans), route))

    def fingerprint(watched: set[Path]) -> dict[Path, int]:
        return dict.fromkeys(watched, next(prints, 3))

    monkeypatch.setattr("trio_echo.rehearsal.run._fingerprint", fingerprint)
    done = trio.Event()
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            testbed = cast("Testbed", Changing())
            await follow(
                testbed,
                lambda: plans.pop(0),
                said,
                shifted=done.set,
                refused=lambda _: None,
            )

        nursery.start_soon(run)
        with trio.fail_after(20):
            await done.wait()
        nursery.cancel_scope.cancel()
    assert changes == [(5, empty.route)]


async def test_what_is_up_stays_until_the_manifests_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a walk the route has other weights than its manifests; that is no edit of them."""
    monkeypatch.setattr("trio_echo.rehearsal.run._LOOK", 0.02)
    manifest = Manifest(tmp_path / "route.yaml")
    said = manifest.read()
    route = said.route
    (listener,) = route.listeners
    (chain,) = listener.chains
    walked = replace(route, listeners=(replace(listener, chains=(chain.weighted((0, 1)),)),))
    looked = trio.Event()

    def read() -> Plan:
        found = Manifest.read(manifest)
        trio.from_thread.run_sync(looked.set)
        return found

    monkeypatch.setattr(manifest, "read", read)
    async with open_testbed(route, find_envoy()) as testbed, trio.open_nursery() as nursery:
        await testbed.change(walked)
        nursery.start_soon(manifest.follow, testbed, said)
        await looked.wait()
        await manifest.edit("weight: 80", "wait: 80")
        assert "spec.tcp[0].route[0].wait" in manifest.refused[-1]
        await manifest.edit("wait: 80", "[ broken")
        assert testbed.route is walked
        await manifest.edit("[ broken", "weight: 60")
        assert testbed.route.shares(testbed.route.listeners[0].chains[0]) == {"one": 60, "two": 20}
        nursery.cancel_scope.cancel()


class Said(Events):
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.counted: list[tuple[int, dict[str, int]]] = []

    def noted(self, notice: Notice) -> None:
        """Keep a note."""
        self.said.append(notice.text)

    def warned(self, warning: Notice) -> None:
        """Keep a warning."""
        self.said.append(warning.text)

    def accepted(self, counts: Mapping[str, int]) -> None:
        """Keep counts, and when they were said."""
        self.counted.append((round(trio.current_time()), dict(counts)))


def conductor(tmp_path: Path) -> tuple[_Conductor, Said, Plan]:
    """A conductor of a plan with one note and one warning, and what it has said."""
    plan = replace(
        Manifest(tmp_path / "route.yaml").read(),
        notices=(Notice("a note"),),
        warnings=(Notice("a warning"),),
    )
    said = Said()
    return _Conductor(plan, ProbeConfig, said), said, plan


async def test_what_was_said_is_not_said_again(tmp_path: Path) -> None:
    """Each reading of the manifests tells only what is new in it."""
    conducting, said, plan = conductor(tmp_path)
    assert said.said == ["a note", "a warning"]
    later = replace(plan, notices=(Notice("a note", "moved.yaml", 7), Notice("another")))
    conducting._say_notices(later)  # noqa: SLF001 - what a reload calls
    assert said.said == ["a note", "a warning", "another"]


async def test_counts_of_a_held_route_are_said_at_once_and_then_now_and_then(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The first connection to a backend is news; more of them are not, for ten seconds."""
    del autojump_clock  # asked for so that time jumps
    conducting, said, _ = conductor(tmp_path)
    began = trio.current_time()

    class Accepting:
        """One connection of `one` in each second, and a single one of `two`."""

        def accepted(self) -> dict[str, int]:
            """The counts so far."""
            seconds = int(trio.current_time() - began)
            return {"one": seconds, "two": int(seconds >= 3)}

    with trio.move_on_after(14.2):
        await conducting._say_accepted(cast("Testbed", Accepting()), dict)  # noqa: SLF001 - what `hold` starts
    assert [(when - round(began), counts) for when, counts in said.counted] == [
        (1, {"one": 1}),
        (3, {"one": 3, "two": 1}),
        (13, {"one": 13, "two": 1}),
    ]
