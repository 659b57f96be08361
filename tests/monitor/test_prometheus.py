"""A real Prometheus, with the settings that the pages show, takes what watch and gate export."""

from __future__ import annotations

import json
import re
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
import trio.testing
import yaml
from backends import backend, drawing
from documenting.pages import ROOT, blocks
from kustomized import MANIFESTS, pick, render
from prometheus_server import Prometheus, needs_prometheus, prometheus

from trio_echo.monitor.exposition import watch_front
from trio_echo.monitor.gate import Gate
from trio_echo.monitor.request import Allowed, Terms
from trio_echo.monitor.watch import Watch, WatchConfig, watch
from trio_echo.prober.config import ProbeConfig

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Mapping

TWO = {"one": 80.0, "two": 20.0}
EVERY = "300ms"
PAGE = Path("docs/prometheus.md")

VARIABLES = {"$__rate_interval": "1m", "$__range": "1h", "$job": ".*", "$instance": ".*"}
"""What Grafana puts into a query."""


def scrape_configs(places: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The jobs of the page, at other addresses, and often enough for a test."""
    text = "---\n".join(blocks(PAGE, "yaml"))
    for old, new in places.items():
        text = text.replace(old, new)
    documents = yaml.safe_load_all(text)
    for job in (job for page in documents for job in page["scrape_configs"]):
        if "params" in job:
            job["params"] |= {"margin": ["0.2"]}  # decided within a moment
            yield job | {"scrape_interval": "2s", "scrape_timeout": "2s"}
        else:
            yield job | {"scrape_interval": EVERY, "scrape_timeout": EVERY}


def panels() -> Iterator[tuple[str, str]]:
    """Each query of the dashboard, with the title of its panel."""
    dashboard = json.loads((MANIFESTS / "watch/prometheus/dashboard.json").read_text("utf-8"))
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


@needs_prometheus
async def test_a_real_prometheus_understands_what_watch_and_gate_tell(tmp_path: Path) -> None:
    """Every panel shows something, every rule is evaluated, and a probe is a scrape."""
    rules = pick(render("watch/prometheus"), "PrometheusRule")["spec"]
    (tmp_path / "rules.yml").write_text(json.dumps(rules), encoding="utf-8")
    async with (
        backend(drawing(TWO, seed=1)) as target,
        watched(target) as watching,
        gated(target) as asked,
    ):
        places = {
            "tcp-echo-watch.trio-echo:8080": watching,
            "tcp-echo-gate.trio-echo:8080": asked,
            "istio-ingressgateway.istio-system:31400": target,
        }
        setup = {
            "global": {"evaluation_interval": EVERY},
            "scrape_configs": [*scrape_configs(places)],
            "rule_files": ["rules.yml"],
        }
        async with prometheus(tmp_path, setup) as server:
            await server.until("rate(trio_echo_watch_connections_total[1m]) > 0")
            await shows_everything(server)
            await probes(server, target)


@asynccontextmanager
async def listening() -> AsyncGenerator[tuple[trio.SocketListener, str]]:
    """A listener, and its address."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        yield listener, f"127.0.0.1:{listener.socket.getsockname()[1]}"


@asynccontextmanager
async def watched(target: str) -> AsyncGenerator[str]:
    """A watch of backends that split as expected; yields where its metrics are."""
    watching: list[Watch] = []
    async with listening() as (listener, address), trio.open_nursery() as nursery:
        settings = WatchConfig(probe=ProbeConfig(target=target, expect=TWO), rate=50.0, hold=2)
        nursery.start_soon(partial(watch, settings, follow=watching.append))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(watch_front(watching[0].record).serve, [listener])
        yield address
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def gated(target: str) -> AsyncGenerator[str]:
    """A gate that may probe the target; yields where it is."""
    async with listening() as (listener, address), trio.open_nursery() as nursery:
        nursery.start_soon(Gate(Terms(allow=[Allowed(target)])).serve, [listener])
        yield address
        nursery.cancel_scope.cancel()


async def probes(server: Prometheus, target: str) -> None:
    """Each scrape of the gate is a probe of the target, whose name it carries."""
    await server.until(f'probe_success{{instance="{target}"}} == 1')
    for expression in (
        'trio_echo_probe_verdict{verdict="PASS"} == 1',
        'abs(trio_echo_probe_share{backend="one"} - 0.8) < 0.2',
        'trio_echo_probe_expected_share{backend="two"} == 0.2',
        "probe_duration_seconds > 0",
    ):
        assert await server.query(expression), expression
    known = {*(await server.get("label/__name__/values"))}
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    told = {*re.findall(r"`((?:trio_echo_)?probe_\w+)", page)}
    assert {name for name in known if re.match("(trio_echo_)?probe_", name)} == told


async def shows_everything(server: Prometheus) -> None:
    """Each panel has data, and each rule is well."""
    for title, expression in panels():
        query = expression
        for name, value in VARIABLES.items():
            query = query.replace(name, value)
        assert await server.query(query), title
    groups = (await server.get("rules"))["groups"]
    known = {*(await server.get("label/__name__/values"))}
    for rule in (rule for group in groups for rule in group["rules"]):
        # A rate has no value yet at the first scrape, which leaves one pending for a moment.
        assert rule["health"] == "ok", rule
        assert rule["state"] != "firing", rule
        assert {*re.findall(r"trio_echo_\w+", rule["query"])} <= known
    exported = {re.sub("_(bucket|sum|count)$", "", name) for name in known}
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    assert {name for name in exported if name.startswith("trio_echo_watch")} == {
        *re.findall(r"`(trio_echo_watch_\w+)", page)
    }
