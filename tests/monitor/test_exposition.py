"""What a watch shows over HTTP: to a scraper's parser, a real Prometheus, a real Chromium."""

from __future__ import annotations

import urllib.error
import urllib.request
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.lowlevel
from backends import backend, drawing
from chromium import CHROMIUM, browser
from prometheus_client.registry import CollectorRegistry
from reports import ok
from scraping import OPENMETRICS, TEXT, read_samples

from trio_echo.monitor.exposition import Exposition, watch_front
from trio_echo.monitor.record import Loss, Record
from trio_echo.monitor.watch import Watch, WatchConfig, watch
from trio_echo.prober.config import ProbeConfig
from trio_echo.prober.counts import Outcome, Result
from trio_echo.prober.split import Expectation
from trio_echo.server.admin import render

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

TWO = {"one": 80.0, "two": 20.0}


def some_record() -> Record:
    """Ten connections, one of them failed, one held connection lost."""
    record = Record(Expectation(TWO), "echo.test:9000")
    for name in ("one", "one", "one", "two", "one", "one", "o\ud800<", "one", "two"):
        record.take(ok(name), 1.0)
    record.take(Result(Outcome.RESET), 1.0)
    record.lose(Loss("one", Outcome.RESET, "", 45.0), 2.0, ("two", 0.1))
    record.held = 3
    return record


@pytest.mark.parametrize("accept", [TEXT, OPENMETRICS, "application/openmetrics-text;version=x"])
def test_the_metrics_are_what_the_record_says(accept: str) -> None:
    """In either format; each name as it is shown; outcomes from zero."""
    record = some_record()
    body, content_type = render(Exposition(record), accept)
    samples = read_samples(body, content_type)
    assert samples["trio_echo_watch_connections_total|backend=one"] == 6
    assert samples["trio_echo_watch_connections_total|backend=o\\ud800<"] == 1
    assert samples["trio_echo_watch_expected_share|backend=one"] == 0.8
    assert "trio_echo_watch_expected_share|backend=o\\ud800<" not in samples
    assert samples["trio_echo_watch_share|backend=one"] == pytest.approx(0.6)
    low = samples["trio_echo_watch_share_low|backend=one"]
    assert low < 0.6 < samples["trio_echo_watch_share_high|backend=one"]
    assert samples["trio_echo_watch_failures_total|outcome=reset"] == 1
    assert samples["trio_echo_watch_failures_total|outcome=refused"] == 0
    assert samples["trio_echo_watch_held_lost_total|reason=reset"] == 1
    assert samples["trio_echo_watch_held"] == 3
    assert samples["trio_echo_watch_changes_total"] == 1
    assert samples["trio_echo_watch_verdict|verdict=INCONCLUSIVE"] == 1
    assert samples["trio_echo_watch_verdict|verdict=FAIL"] == 0
    assert samples["trio_echo_watch_window_connections"] == 10
    assert 0 <= samples["trio_echo_watch_evidence"] < 1
    assert samples["trio_echo_watch_answer_seconds_count|backend=one"] == 6
    # Each took 1 + 3 ms: at most 2.5 ms none, at most 5 ms all.
    assert samples["trio_echo_watch_answer_seconds_bucket|backend=one|le=0.0025"] == 0
    assert samples["trio_echo_watch_answer_seconds_bucket|backend=one|le=0.005"] == 6
    total = samples["trio_echo_watch_answer_seconds_sum|backend=one"]
    assert total == pytest.approx(6 * 0.004, rel=0.01)


def test_the_metrics_join_a_registry() -> None:
    """They are a collector like any other."""
    registry = CollectorRegistry()
    registry.register(Exposition(some_record()))
    assert registry.get_sample_value("trio_echo_watch_held") == 3


@asynccontextmanager
async def served(record: Record) -> AsyncGenerator[str]:
    """The pages of a record; yields their address."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(watch_front(record).serve, [listener])
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


def read(url: str) -> tuple[dict[str, str], bytes]:
    """The headers and the body of a page."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310 - of ours
            return dict(response.headers), response.read()
    except urllib.error.HTTPError as error:
        error.close()
        raise


async def test_the_pages_come_with_their_types_and_policy() -> None:
    """The page, its live part, the picture, the metrics, and two for the platform."""
    async with served(some_record()) as address:
        for path, content_type, begins in (
            ("/", "text/html", b"<!doctype html>"),
            ("/live", "text/html", b"<h1>"),
            ("/timeline.svg", "image/svg+xml", b"<svg "),
            ("/metrics", "text/plain", b"# HELP trio_echo_watch_info "),
            ("/livez", "text/plain", b"watching"),
            ("/readyz", "text/plain", b"watching"),
        ):
            headers, body = await trio.to_thread.run_sync(read, address + path)
            assert headers["Content-Type"].startswith(content_type)
            assert body.startswith(begins)
            if path in {"/", "/live", "/timeline.svg"}:
                assert "default-src 'none'" in headers["Content-Security-Policy"]
                assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
async def test_a_real_browser_shows_the_move_without_a_reload(tmp_path: Path) -> None:
    """Its document follows; it asks nobody else for anything; it is dark, or narrow, on demand."""
    watching: list[Watch] = []
    choose = drawing(TWO, seed=1)

    async def handle(stream: trio.abc.Stream) -> None:
        await choose(stream)

    async with backend(handle) as target, trio.open_nursery() as nursery:
        settings = WatchConfig(probe=ProbeConfig(target=target, expect=TWO), rate=50.0, hold=2)
        nursery.start_soon(partial(watch, settings, follow=watching.append))
        while not watching:
            await trio.lowlevel.checkpoint()
        async with served(watching[0].record) as address, browser(tmp_path) as tab:
            with trio.fail_after(60):
                await tab.open(f"{address}/")
                await tab.until("document.title.includes('so far')")
                await tab.evaluate("window.mark = 1")
                choose = drawing({"<b>three</b>": 1.0}, seed=2)
                await tab.until("document.body.innerText.includes('the split changed at about')")
                assert await tab.evaluate("window.mark") == 1
                text = await tab.evaluate("document.body.innerText")
                ground = "getComputedStyle(document.body).backgroundColor"
                shades = [await tab.evaluate(ground)]
                await tab.prefer("dark")
                shades.append(await tab.evaluate(ground))
                await tab.narrow(390)
                page = "document.documentElement"
                fits = await tab.evaluate(f"{page}.scrollWidth <= {page}.clientWidth")
                cell = "document.querySelector('tbody td').getBoundingClientRect()"
                lines = await tab.evaluate(f"{cell}.height / {cell}.width")
                bold = await tab.evaluate("document.querySelectorAll('b').length")
        nursery.cancel_scope.cancel()
    assert "<b>three</b>" in text
    assert bold == 0
    assert fits
    assert lines < 0.5
    assert shades == ["rgb(255, 255, 255)", "rgb(13, 17, 23)"]
    asked = {url for url in tab.requests if not url.startswith("data:")}
    assert {f"{address}/", f"{address}/live"} <= asked
    assert asked <= {f"{address}/", f"{address}/live", f"{address}/favicon.ico"}
    assert tab.complaints == []
