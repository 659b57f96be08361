"""A held route follows edits as Istio would: which cut open connections, and what is said."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio
from manifest_texts import BACKENDS, GATEWAY, RULE, V2_20, parse_once

from trio_echo.prober.config import ProbeConfig
from trio_echo.rehearsal.process import find_envoy
from trio_echo.rehearsal.run import Events, _Conductor, read_plan
from trio_echo.rehearsal.testbed import open_testbed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

    import pytest

    from trio_echo.errors import TrioEchoError
    from trio_echo.rehearsal.judge import Target
    from trio_echo.rehearsal.route import Plan
    from trio_echo.rehearsal.testbed import Testbed

DRAIN = 1


class Held(Events):
    """A folder of manifests that is edited, the route that is held, and what is said."""

    def __init__(self, folder: Path) -> None:
        """Write the demonstration, each object in a file of its own."""
        self.draft = folder.with_suffix(".draft")
        self.folder = folder
        self.folder.mkdir()
        self.said: list[str] = []
        self.heard = trio.Event()
        self.looked = trio.Event()
        files = {"app": BACKENDS, "gateway": GATEWAY, "rule": RULE, "route": V2_20}
        for name, text in files.items():
            (folder / f"{name}.yaml").write_text(text)
        self.read = partial(read_plan, [str(folder)], parse_once)

    def reload(self) -> Plan:
        """Read them again; the first edit must come after the first time."""
        plan = self.read(again=True)
        trio.from_thread.run_sync(self.looked.set)
        return plan

    async def edit(self, file: str, old: str, new: str) -> str:
        """Edit a file, and wait for what is said to it."""
        text = (self.folder / file).read_text()
        assert old in text
        return await self.write(file, text.replace(old, new, 1))

    async def write(self, file: str, text: str | None) -> str:
        """Write or delete a file, and wait for what is said to it."""
        self.heard = trio.Event()
        if text is None:
            (self.folder / file).unlink()
        else:
            self.draft.write_text(text)
            self.draft.replace(self.folder / file)
        with trio.fail_after(20):
            await self.heard.wait()
        return self.said[-1]

    def _say(self, words: str) -> None:
        self.said.append(words)
        self.heard.set()

    def shifted(self, target: Target, shares: Mapping[str, float], cut: int | None) -> None:
        """A part of the route is another."""
        self._say(f"shifted {target.listener.port}: {_words(shares)}, cut {cut}")

    def opened(self, target: Target, shares: Mapping[str, float]) -> None:
        """A part is new."""
        self._say(f"opened {target.listener.port}: {_words(shares)}")

    def closed(self, target: Target, cut: int) -> None:
        """A part is gone."""
        self._say(f"closed {target.listener.port}, cut {cut}")

    def unchanged(self) -> None:
        """Nothing of it has changed."""
        self._say("unchanged")

    def refused(self, error: TrioEchoError) -> None:
        """An edit is wrong."""
        self._say(f"refused {error}")


def _words(shares: Mapping[str, float]) -> str:
    return "/".join(f"{share:g}" for share in shares.values())


class Client:
    """An open connection to the route."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream

    async def ask(self) -> bool:
        """Whether a line is answered."""
        await self._stream.send_all(b"?\n")
        with trio.fail_after(5):
            return bytes(await self._stream.receive_some()).endswith(b" ?\n")

    async def is_cut(self) -> bool:
        """Whether it ends by itself, soon after the drain time."""
        with trio.move_on_after(DRAIN + 5):
            try:
                return await self._stream.receive_some() == b""
            except trio.BrokenResourceError:
                return True
        return False


@asynccontextmanager
async def holding(held: Held) -> AsyncIterator[tuple[Testbed, Callable[..., Awaitable[Client]]]]:
    """Hold the route of the manifests; give what is up, and who connects to its ports."""
    plan = held.read()
    async with (
        open_testbed(plan.route, find_envoy(), drain=DRAIN) as testbed,
        AsyncExitStack() as streams,
        trio.open_nursery() as nursery,
    ):

        async def connect(which: int = 0) -> Client:
            stream = await trio.open_tcp_stream("127.0.0.1", [*testbed.ports.values()][which])
            client = Client(await streams.enter_async_context(stream))
            assert await client.ask()
            return client

        nursery.start_soon(_Conductor(plan, ProbeConfig, held).hold, testbed, held.reload)
        await held.looked.wait()
        yield testbed, connect
        nursery.cancel_scope.cancel()


async def test_every_edit_cuts_what_istio_cuts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First the edits that cut nothing, then those that do."""
    monkeypatch.setattr("trio_echo.rehearsal.run._LOOK", 0.02)
    held = Held(tmp_path / "manifests")
    async with holding(held) as (testbed, connect):
        old = [await connect() for _ in range(8)]
        # The same YAML, an annotation, the name of a port.
        assert await held.edit("route.yaml", "metadata:", "metadata: # again") == "unchanged"
        note = "metadata:\n  annotations: {a: b}"
        assert await held.edit("gateway.yaml", "metadata:", note) == "unchanged"
        assert await held.edit("gateway.yaml", "name: tcp\n", "name: tcp-other\n") == "unchanged"
        # What stands in a cluster, or is an endpoint of it.
        quick = "trafficPolicy: {connectionPool: {tcp: {connectTimeout: 3s}}}\n  subsets:"
        same = "shifted 31400: 80/20, cut None"
        assert await held.edit("rule.yaml", "subsets:", quick) == same
        assert await held.edit("app.yaml", "replicas: 1", "replicas: 2") == same
        assert await held.edit("app.yaml", "replicas: 2", "replicas: 1") == same
        one, other = "version: v1\n  - name: v2", "version: v2\n  - name: v2"
        assert await held.edit("rule.yaml", one, other) == "shifted 31400: 100, cut None"
        assert await held.edit("rule.yaml", other, one) == same
        # Another Gateway on another port.
        more = GATEWAY.replace("tcp-echo-gateway", "second").replace("31400", "31401")
        assert await held.write("second.yaml", more) == "unchanged"
        bound = V2_20.replace("tcp-echo-gateway", "second").replace("31400", "31401")
        named = bound.replace("name: tcp-echo\n", "name: second\n")
        assert await held.write("third.yaml", named) == "opened 31401: 80/20"
        # One there is cut: the drain time of all these edits is over then.
        beside = await connect(1)
        seventy = "shifted 31401: 70/20, cut 1"
        assert await held.edit("third.yaml", "weight: 80", "weight: 70") == seventy
        assert await beside.is_cut()
        assert all([await each.ask() for each in old])

        # What stands in the listener: weights, the idle timeout, the route itself.
        forty = "shifted 31400: 40/20, cut 1"
        assert await held.edit("route.yaml", "weight: 80", "weight: 40") == forty
        second = await connect()
        idle = "connectTimeout: 3s, idleTimeout: 1h"
        assert await held.edit("rule.yaml", "connectTimeout: 3s", idle) == seventy
        assert held.said[-2] == forty
        third = await connect()
        port = next(iter(testbed.ports.values()))
        assert await held.write("route.yaml", None) == "closed 31400, cut 1"
        assert all([await each.ask() for each in [*old, second, third]])
        for each in [*old, second, third]:
            assert await each.is_cut()
        await refusal(port)
        assert await held.write("third.yaml", None) == "closed 31401, cut 1"
        assert not testbed.route.listeners
        # And back again.
        assert await held.write("route.yaml", V2_20) == "opened 31400: 80/20"
        await connect()  # perhaps on another port, if somebody has taken it


async def refusal(port: int) -> None:
    """Wait until a port refuses connections."""
    with trio.fail_after(5):
        while True:
            try:
                await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
            except OSError:
                return
