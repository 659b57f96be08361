"""A watch beside a rehearsal: the weights are edited, and the watch says when and to what."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import trio
from manifest_texts import ISTIO

from trio_echo.monitor.watch import Watch, WatchConfig, watch
from trio_echo.prober.config import ProbeConfig

if TYPE_CHECKING:
    from pathlib import Path

    from trio_echo.monitor.record import Event


HELD = 4


async def test_edited_weights_are_seen_on_a_real_envoy(tmp_path: Path) -> None:
    """80/20 for a while, then 20/80 in the file, as a shift in Istio goes.

    One change, at its moment, both shares right; and a drain time later every
    connection that was held is cut, and replaced at once.
    """
    manifest = trio.Path(tmp_path / "route.yaml")
    await manifest.write_text(ISTIO)
    command = [sys.executable, "-m", "trio_echo", "rehearse", str(manifest), "--hold"]
    command += ["--port", "31400", "--margin", "0.2", "--alpha", "0.0001", "--drain", "1"]
    events: list[Event] = []
    watching: list[Watch] = []
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            run = partial(
                trio.run_process,
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                check=False,
            )
            rehearsal: trio.Process = await nursery.start(run)
            assert rehearsal.stdout is not None
            said = b""
            while not (found := re.search(rb"holding; try: .* 127\.0\.0\.1 (\d+)\n", said)):
                chunk = await rehearsal.stdout.receive_some()
                assert chunk, said
                said += bytes(chunk)

            async def edit() -> None:
                while watching[0].record.counts.total < 200:  # noqa: ASYNC110 - real sockets
                    await trio.sleep(0.05)
                moved = ISTIO.replace("weight: 80", "weight: x").replace("weight: 20", "weight: 80")
                await manifest.write_text(moved.replace("weight: x", "weight: 20"))
                while watching[0].record.lost.total() < HELD or not watching[0].record.changes:  # noqa: ASYNC110 - as above
                    await trio.sleep(0.05)
                watching[0].stop()

            def follow(begun: Watch) -> None:
                watching.append(begun)
                nursery.start_soon(edit)

            probe = ProbeConfig(target=f"127.0.0.1:{int(found[1])}", expect={"one": 80, "two": 20})
            config = WatchConfig(probe=probe, rate=100.0, hold=HELD)
            record = await watch(config, tell=events.append, follow=follow)
            rehearsal.terminate()
            while await rehearsal.stdout.receive_some():
                pass
    [change] = [event for event in events if event.kind == "change"]
    lost = [event for event in events if event.kind == "lost"]
    assert record.counts.errors == 0
    assert len(lost) == HELD
    for event in lost:
        assert event.elapsed > change.elapsed - 1
        assert event.data["replaced_after"] < 2
    assert change.data["connection"] > 150
    shares = {one["name"]: (one["before"], one["after"]) for one in change.data["backends"]}
    assert shares["one"][0] > 0.7
    assert shares["one"][1] < 0.5
