"""The Deployments as rendered, behind a real Envoy with the route's weights, judged by the Job."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import pytest
import trio
import yaml
from kustomized import container, pick, render, weights
from podman import ECHO

from trio_echo.prober.config import ProbeConfig
from trio_echo.prober.counts import Outcome
from trio_echo.prober.schedule import Tally, probe
from trio_echo.rehearsal import envoy
from trio_echo.rehearsal.dataplane import configure
from trio_echo.rehearsal.process import Envoy, find_envoy
from trio_echo.rehearsal.route import Chain, Destination, Endpoint, Listener, Route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from podman import Container, Podman, Result

    from trio_echo.prober.words import Report

T = TypeVar("T")
VERSIONS = ("v1", "v2")
GATEWAY = 31400
TARGET = f"127.0.0.1:{GATEWAY}"


class Mesh:
    """What a cluster would add: pods by version, and a gateway that knows where they are."""

    def __init__(self, podman: Podman, gateway: Envoy, folder: Path) -> None:
        """Prepare a mesh without pods, whose gateway watches files in `folder`."""
        self.pods: dict[str, list[Container]] = {}
        self._podman = podman
        self._gateway = gateway
        self._folder = folder
        self._version = 0

    async def play(self, version: str, generation: str = "") -> list[Container]:
        """Start the pods of a version's Deployment and wait until they are ready."""
        deployment = pick(render("base"), "Deployment", f"tcp-echo-{version}")
        deployment["metadata"]["name"] += generation
        # podman publishes every port that is named, all pods' on the one host.
        del container(deployment)["ports"]
        pods = await in_thread(self._podman.play, yaml.safe_dump(deployment))
        assert len(pods) == deployment["spec"]["replicas"]
        for pod in pods:
            await pod.until_listening(ECHO)
            await pod.until_status("/readyz", 200)
        return pods

    async def route(self, shares: Mapping[str, int]) -> None:
        """Tell the gateway the weights, and where the pods are; return when it knows."""
        destinations = [
            Destination(
                name=version,
                weight=shares[version],
                endpoints=tuple(Endpoint(version, n, ECHO) for n in range(len(pods))),
            )
            for version, pods in self.pods.items()
        ]
        addresses = {
            Endpoint(version, n, ECHO): (await in_thread(lambda pod=pod: pod.address), ECHO)
            for version, pods in self.pods.items()
            for n, pod in enumerate(pods)
        }
        listener = Listener(
            name="tcp-echo", port=GATEWAY, chains=(Chain(destinations=tuple(destinations)),)
        )
        route = Route(listeners=(listener,), backends=())
        self._version += 1
        machine = envoy.Machine(addresses=addresses, ports={listener.name: GATEWAY})
        found = configure(route, machine)
        self._write("cluster", found.clusters)
        self._write("listener", found.listeners)

    def _write(self, kind: str, resources: list[dict[str, Any]]) -> None:
        """Replace a file that the gateway watches, in one step."""
        content = envoy.discovery(str(self._version), resources, of=kind)
        new = self._folder / f"{kind}.new"
        new.write_bytes(msgspec.json.encode(content))
        new.replace(self._folder / f"{kind}.json")

    async def routed(self) -> None:
        """Wait until the gateway has taken in the latest route."""
        for manager in ("cluster_manager.cds", "listener_manager.lds"):
            await self._gateway.took(manager, str(self._version), rejected=0)


async def in_thread(work: Callable[..., T], *arguments: object) -> T:
    """Call podman beside the probe, not in its way."""
    return await trio.to_thread.run_sync(work, *arguments)


@asynccontextmanager
async def open_mesh(podman: Podman, folder: Path, shares: Mapping[str, int]) -> AsyncIterator[Mesh]:
    """Run both Deployments and a gateway with the given weights in front of them."""
    gateway = Envoy(find_envoy(), folder)
    mesh = Mesh(podman, gateway, folder)
    boot = folder / "bootstrap.json"
    files = (str(folder / f"{kind}.json") for kind in ("listener", "cluster"))
    boot.write_bytes(msgspec.json.encode(envoy.bootstrap(*files)))
    try:
        mesh.pods = {version: await mesh.play(version) for version in VERSIONS}
        await mesh.route(shares)
        async with trio.open_nursery() as nursery:
            await nursery.start(gateway.run, boot)
            await mesh.routed()
            yield mesh
            nursery.cancel_scope.cancel()
    finally:
        podman.run("podman", "pod", "rm", "--all", "--force", "--time=0")


async def run_job(podman: Podman, image: str) -> Result:
    """Run the Job's own command in the image, at the gateway of this mesh."""
    main = container(pick(render("probe"), "Job"))
    [program, *command] = main["command"]
    run = ("podman", "run", "--rm", "--pull=never", "--network=host", "--read-only")
    arguments = (f"--entrypoint={program}", image, *command, TARGET, *main["args"][1:])
    return await in_thread(lambda: podman.run(*run, *arguments, check=False))


@pytest.mark.parametrize("folder", ["istio", "gateway-api"])
async def test_the_job_passes_the_route_as_rendered(
    podman: Podman, image: str, tmp_path: Path, folder: str
) -> None:
    """Weights of 80 and 20, from either dialect, are what the connections show."""
    shares = weights(render(folder))

    async with open_mesh(podman, tmp_path, shares):
        verdict = await run_job(podman, image)

    assert shares == {"v1": 80, "v2": 20}
    assert verdict.code == 0, verdict
    assert "PASS" in verdict.out


async def test_the_job_fails_a_route_that_was_edited(
    podman: Podman, image: str, tmp_path: Path
) -> None:
    """Half and half, and nobody told the probe."""
    async with open_mesh(podman, tmp_path, {"v1": 50, "v2": 50}):
        verdict = await run_job(podman, image)

    assert verdict.code == 1, verdict
    assert "FAIL" in verdict.out


async def test_a_rolling_restart_loses_no_connection(
    podman: Podman, image: str, tmp_path: Path
) -> None:
    """Both versions are replaced, one after the other, while connections go on."""
    assert image
    async with open_mesh(podman, tmp_path, weights(render("istio"))) as mesh:
        async with trio.open_nursery() as nursery:
            load = Load()
            await nursery.start(load.run)
            for version in VERSIONS:
                await load.more(200)
                before, mesh.pods[version] = mesh.pods[version], await mesh.play(version, "-next")
                await mesh.route(weights(render("istio")))
                await mesh.routed()
                assert [await in_thread(pod.stop, grace()) for pod in before] == [0, 0]
            await load.more(200)
            load.tally.stop()
        fresh = [pod for pods in mesh.pods.values() for pod in pods]
        metrics = [(await in_thread(pod.get, "/metrics"))[1] for pod in fresh]

    # Those in flight at the end were cut by the probe itself, or answered too late to count.
    counts = load.report.counts
    whole = counts.launched - counts.unfinished - counts.late.total()
    assert counts.outcomes == {Outcome.OK: whole}
    assert whole > 3 * 200
    assert all('trio_echo_connections_total{port="9000"' in text for text in metrics)


def grace() -> int:
    """The seconds that a kubelet leaves a pod after its preStop."""
    deployment = pick(render("base"), "Deployment", "tcp-echo-v1")
    pause: int = container(deployment)["lifecycle"]["preStop"]["sleep"]["seconds"]
    whole: int = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    return whole - pause


class Load:
    """Connections without pause, until somebody stops it.

    Attributes:
        tally: the live count.
        report: what it found, in the end.
    """

    tally: Tally
    report: Report

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Launch 200 connections a second, whatever becomes of them."""
        config = ProbeConfig(target=TARGET, connections=100_000, rate=200, wait=10)

        def watch(tally: Tally) -> None:
            self.tally = tally
            task_status.started()

        self.report = await probe(config, watch=watch)

    async def more(self, connections: int) -> None:
        """Wait until so many more have been launched."""
        wanted = self.tally.launched + connections
        with trio.fail_after(30):
            while self.tally.launched < wanted:  # noqa: ASYNC110 - a count that others read too
                await trio.sleep(0.02)
