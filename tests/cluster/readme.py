"""The commands of ``manifests/README.md``, run word for word, in their order."""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from typing import TYPE_CHECKING

import trio
from cluster import istio
from cluster.apply import MANIFESTS, NAMESPACE, backends_are_ready, nothing_was_violated
from cluster.processes import run_all

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from cluster.node import Node

ELSEWHERE = {
    r"(kind|minikube|docker) ": "this node is no container's",
    r"nox ": "a session of its own",
    r"kubectl apply .*https?://": "nothing is downloaded here: the same files come from the module",
    r".*ambient": "its node proxy is not built here",
    r".*(^| )[A-Z]{3,}( |$)": "a form, to be filled in",
    r"kubectl diff -k$": "a form, to be filled in",
}
"""The commands that are not run, by a pattern, and why."""

WALK = (
    r"trio-echo rehearse manifests/base manifests/istio$",
    # From nothing, with Istio.
    r"kubectl apply -k manifests/base$",
    r"kubectl config set-context",
    r"kubectl rollout status",
    r"istioctl install --set profile=demo --skip",
    r"kubectl apply -k manifests/istio$",
    r".*patch service istio-ingressgateway",
    r".*port-forward service/istio-ingressgateway",
    r"for i in .*nc -N localhost 31400",
    r"trio-echo probe localhost:31400",
    r"kubectl apply -k manifests/shift/istio/all-v1$",
    r"kubectl apply -k manifests/shift/istio/all-v2$",
    r"kubectl apply -k manifests/istio$",
    # From inside.
    r"kubectl apply -k manifests/probe$",
    r"kubectl logs --follow .*job/tcp-echo-probe",
    r"kubectl wait .*job/tcp-echo-probe",
    r"kubectl delete -k manifests/probe$",
    r"kubectl apply -k manifests/probe/indexed",
    r"kubectl wait --for=condition=complete --timeout=5m job/tcp-echo-probe",
    r"kubectl logs --selector.*report",
    r"kubectl delete -k manifests/probe/indexed",
    r"kubectl apply -k manifests/watch$",
    r"kubectl rollout status deployment/tcp-echo-watch",
    r"kubectl logs deployment/tcp-echo-watch",
    # With the Gateway API.
    r"istioctl install --set profile=minimal",
    r"kubectl apply -k manifests/gateway-api$",
    r"kubectl wait .*gateway/tcp-echo-gateway",
    r"kubectl port-forward service/tcp-echo-gateway-istio",
    r"for i in .*nc -N localhost 31400",
    r"trio-echo probe localhost:31400",
    r"kubectl apply -k manifests/shift/gateway-api/all-v1$",
    r"kubectl apply -k manifests/shift/gateway-api/all-v2$",
    r"kubectl apply -k manifests/gateway-api$",
    # Between pods.
    r"istioctl install .*cni",
    r"kubectl label namespace trio-echo istio-injection=enabled",
    r"kubectl rollout restart",
    r"kubectl apply -k manifests/istio && kubectl apply -k manifests/istio/mesh",
    r"kubectl apply -k manifests/probe/mesh",
    # Clean up.
    r"kubectl delete -k manifests/base",
    r"istioctl uninstall --purge",
)
"""The way of a reader who tries everything: each step is a command of the README."""

FORWARD = re.compile(r"port-forward service/(\S+) (\d+)")


def commands() -> list[str]:
    """Each command of the README's console blocks, in order, and those in its tables and text."""
    text = (MANIFESTS / "README.md").read_text(encoding="utf-8")
    found = [
        (block.start() + line.start(), line[1])
        for block in re.finditer(r"```console\n(.*?)```", text, re.DOTALL)
        for line in re.finditer(r"^\$ (.*)$", block[1], re.MULTILINE)
    ]
    inline = re.finditer(r"`((?:kubectl|istioctl|trio-echo) [^`]+)`", text)
    found += [(line.start(), " ".join(line[1].split())) for line in inline]
    return [command for _, command in sorted(found)]


async def every_command_works(node: Node) -> None:
    """Each command ends with exit code 0, in the order in which the README leads through them."""
    written = commands()
    left = dict.fromkeys(written)
    forwards: trio.CancelScope | None = None
    async with trio.open_nursery() as nursery:
        for step in WALK:
            found = [each for each in written if re.match(step, each)]
            assert found, f"the README has no command {step}"
            left.pop(found[0], None)
            if forward := FORWARD.search(found[0]):
                if forwards is not None:
                    forwards.cancel()
                # The stand-in for the kubelet forwards no ports: a listener here does.
                forwards = await nursery.start(_forward, node, found[0], forward)
                continue
            await _run(node, found[0])
        nursery.cancel_scope.cancel()
    for command in left:
        reason = next((why for what, why in ELSEWHERE.items() if re.match(what, command)), "?")
        print(f"     not run: {command}: {reason}", flush=True)


async def _run(node: Node, command: str) -> None:
    if command.startswith("istioctl install"):
        command = f"{command} {shlex.join(istio.PLAIN_ENVOY)}"
    print(f"     $ {command}", flush=True)
    with trio.fail_after(180):
        code, said = await run_all(
            "bash",
            "-c",
            f"cd {shlex.quote(str(MANIFESTS.parent))} && {command}",
            env=node.environment,
        )
    assert code == 0, f"{command}: exit code {code}\n{said}"
    assert "Warning:" not in said, f"{command}: {said}"
    if "profile=demo --skip" in command:
        # Other profiles than demo have no port 31400, which the README adds.
        await _without_port(node)
    if "manifests/base" in command and "apply" in command:
        await backends_are_ready(node)
        await nothing_was_violated(node)
    if "probe/mesh" in command:
        wait = ("wait", "--for=condition=complete", "--timeout=90s", "job/tcp-echo-probe")
        await node.kubectl("-n", NAMESPACE, *wait)


async def _without_port(node: Node) -> None:
    path = "/api/v1/namespaces/istio-system/services/istio-ingressgateway"
    service = await node.api.get(path)
    ports = [port for port in service["spec"]["ports"] if port["port"] != 31400]
    await node.api.merge(path, {"spec": {"ports": ports}})


async def _forward(
    node: Node,
    command: str,
    forward: re.Match[str],
    task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Take connections on localhost and relay them to a Service, until cancelled."""
    namespace = "istio-system" if "istio-system" in command else NAMESPACE
    address = node.services.addresses()[namespace, forward[1]]
    port = int(forward[2])
    with trio.fail_after(30):
        while not await _connects(address, port):
            await trio.sleep(0.2)

    async def relay(client: trio.SocketStream) -> None:
        async with (
            client,
            await trio.open_tcp_stream(address, port) as server,
            trio.open_nursery() as both,
        ):
            both.start_soon(_copy, client, server)
            both.start_soon(_copy, server, client)

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_tcp, relay, port)
        task_status.started(nursery.cancel_scope)


async def _connects(address: str, port: int) -> bool:
    # A connection that began before the Service's rule was there never gets through.
    with suppress(OSError), trio.move_on_after(1):
        stream = await trio.open_tcp_stream(address, port)
        await stream.aclose()
        return True
    return False


async def _copy(source: trio.SocketStream, target: trio.SocketStream) -> None:
    try:
        async for data in source:
            await target.send_all(data)
        await target.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return


CHECKS: Mapping[str, Callable[[Node], Awaitable[None]]] = {
    "readme: every command works": every_command_works,
}
