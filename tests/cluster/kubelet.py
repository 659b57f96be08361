"""A stand-in for scheduler, kubelet and container runtime: one node, programs for images.

A pod goes through what a kubelet takes it through: init containers in their order,
native sidecars before the others, startup and readiness probes, ``preStop``, SIGTERM,
the grace period, SIGKILL. Its status says so at each step. What it does not do: pull
images, enforce limits, probe for liveness.
"""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import h11
import trio
from cluster import volumes
from cluster.api import Api, Document, Quiet, RefusedError
from cluster.container import Container
from cluster.network import NODE, pod_network, redirect_to_sidecar
from cluster.processes import Program, end, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

NAME = "node"
PORT = 10250
NETWORK_SETUP = ("istio-init", "istio-validation")
"""Init containers whose work the node itself does: it redirects to sidecars."""
LOOK = 0.2
"""Seconds between two looks of a probe."""


@dataclass(frozen=True)
class Image:
    """What stands for a container image."""

    entry: Sequence[str]
    """Its entry point. None: it starts nothing, and is ready at once or done at once."""
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass
class State:
    """What is known of one container."""

    running: bool = False
    started: bool = False
    ready: bool = False
    restarts: int = 0
    code: int | None = None
    waiting: str = "PodInitializing"
    process: Program | None = None


class Kubelet:
    """The node. ``run`` keeps it; pods start and end with their objects."""

    def __init__(
        self,
        api: Api,
        image: Callable[[str], Image | None],
        hosts: Callable[[str], Path],
        folder: Path,
        logs: Path,
    ) -> None:
        self.api = api
        self.image = image
        self.hosts = hosts
        """The file that is /etc/hosts for the pods of a namespace."""
        self.folder = folder
        self.logs = logs
        self._pods: dict[str, Pod] = {}
        self.addresses: dict[tuple[str, str], str] = {}
        """The pods' addresses, by namespace and name."""
        self.networks: dict[tuple[str, str], str] = {}
        """The pods' network namespaces, by namespace and name."""

    async def run(self) -> None:
        """Register the node, and run what is bound to it, until cancelled."""
        await self.api.apply(_node())
        await self.api.merge(f"/api/v1/nodes/{NAME}/status", {"status": _node_status()})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._serve_logs)

            def seen(event: str, pod: Document) -> None:
                uid = pod["metadata"]["uid"]
                if uid in self._pods:
                    self._pods[uid].see(pod, gone=event == "DELETED")
                    if event == "DELETED":
                        del self._pods[uid]
                elif event == "DELETED":
                    return
                elif "nodeName" not in pod["spec"]:
                    nursery.start_soon(self._bind, pod)
                elif pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
                    self._pods[uid] = Pod(self, pod)
                    nursery.start_soon(self._pods[uid].run)

            await self.api.watch("/api/v1/pods", seen)

    async def _bind(self, pod: Document) -> None:
        metadata = pod["metadata"]
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": metadata["name"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": NAME},
        }
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/binding"
        # Bound already, or gone.
        with suppress(RefusedError):
            await self.api.create(path, binding)

    def ready(self, key: tuple[str, str]) -> bool:
        """Whether a pod is ready, by namespace and name."""
        return any(pod.key == key and pod.ready for pod in self._pods.values())

    def log(self, namespace: str, pod: str, container: str) -> Path:
        """Where a container's output goes."""
        return self.logs / f"{namespace}_{pod}_{container}.log"

    async def _serve_logs(self) -> None:
        """``kubectl logs``: the API server asks the kubelet."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "pki/server.pem", self.folder / "pki/server.key")
        await trio.serve_ssl_over_tcp(self._send_log, PORT, context, host=NODE)

    async def _send_log(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        http = h11.Connection(h11.SERVER)
        with suppress(trio.BrokenResourceError, h11.ProtocolError):
            while (event := http.next_event()) is h11.NEED_DATA:
                http.receive_data(bytes(await stream.receive_some()))
            if not isinstance(event, h11.Request):
                return
            target = urlsplit(event.target.decode())
            _, route, namespace, name, container = (target.path.split("/") + [""] * 5)[:5]
            found = [pod for pod in self._pods.values() if pod.key == (namespace, name)]
            if route != "containerLogs" or not found:
                await stream.send_all(
                    http.send(h11.Response(status_code=404, headers=[("Content-Length", "0")]))
                )
                return
            headers = [("Transfer-Encoding", "chunked"), ("Connection", "close")]
            await stream.send_all(http.send(h11.Response(status_code=200, headers=headers)))
            follow = parse_qs(target.query).get("follow") == ["true"]
            with self.log(namespace, name, container).open("rb") as log:
                while True:
                    over = not follow or found[0].states[container].code is not None
                    if data := log.read(65536):
                        await stream.send_all(http.send(h11.Data(data=data)))
                    elif over:
                        break
                    else:
                        await trio.sleep(LOOK)
            await stream.send_all(http.send(h11.EndOfMessage()))
            await stream.aclose()


class Pod:
    """One pod on its way from its binding to its end."""

    def __init__(self, kubelet: Kubelet, document: Document) -> None:
        self._kubelet = kubelet
        self._api = kubelet.api
        self._document = document
        metadata = document["metadata"]
        self.key = (metadata["namespace"], metadata["name"])
        self._path = f"/api/v1/namespaces/{self.key[0]}/pods/{self.key[1]}"
        spec = document["spec"]
        self._inits: list[Document] = spec.get("initContainers") or []
        self._containers: list[Document] = spec["containers"]
        self.states = {each["name"]: State() for each in (*self._inits, *self._containers)}
        self._deleted = trio.Event()
        self._changes = 0
        self._waiting = trio.lowlevel.ParkingLot()
        self._address = ""
        self._network = ""
        self._folders: dict[str, Path] = {}
        self._began = _now()

    def see(self, document: Document, *, gone: bool) -> None:
        """Hear of a change to the object."""
        if gone or document["metadata"].get("deletionTimestamp"):
            self._document = document
            self._deleted.set()

    async def run(self) -> None:
        """Take the pod from its start to its end. Its object is gone then, or finished."""
        kubelet = self._kubelet
        async with pod_network() as (self._network, self._address):
            kubelet.addresses[self.key] = self._address
            kubelet.networks[self.key] = self._network
            async with trio.open_nursery() as reports:
                reports.start_soon(self._report)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._live, nursery)
                    await self._deleted_or_done(nursery)
                reports.cancel_scope.cancel()
            await self._write_status()
            if not self._deleted.is_set():
                await self._deleted.wait()
            del kubelet.addresses[self.key], kubelet.networks[self.key]
        with suppress(RefusedError):
            await self._api.delete(self._path, grace=0)

    async def _deleted_or_done(self, nursery: trio.Nursery) -> None:
        async with trio.open_nursery() as first:

            async def done() -> None:
                await self._until(lambda: self._phase() in ("Succeeded", "Failed"))
                first.cancel_scope.cancel()

            first.start_soon(done)
            await self._deleted.wait()
            first.cancel_scope.cancel()
        await self._stop()
        nursery.cancel_scope.cancel()

    def _change(self) -> None:
        self._changes += 1
        self._waiting.unpark_all()

    async def _until(self, true: Callable[[], bool]) -> None:
        while not true():
            await self._waiting.park()

    async def _live(self, nursery: trio.Nursery) -> None:
        """Start everything in its order; what goes on running does so in the nursery."""
        folder = self._kubelet.folder / "pods" / str(self._document["metadata"]["uid"])
        self._folders = await volumes.fill(self._api, self._document, self._address, folder)
        names = {each["name"] for each in (*self._inits, *self._containers)}
        if "istio-proxy" in names and names - {"istio-proxy"}:
            await redirect_to_sidecar(self._network)
        for container in self._inits:
            if container.get("restartPolicy") == "Always":
                nursery.start_soon(self._keep, container)
                state = self.states[container["name"]]
                await self._until(partial(getattr, state, "started"))
            elif not await self._run_once(container):
                return
        for container in self._containers:
            nursery.start_soon(self._keep, container)

    async def _run_once(self, container: Document) -> bool:
        state = self.states[container["name"]]
        async with self._started(container) as process:
            state.code = 0 if process is None else await process.wait()
        state.running = False
        self._change()
        return state.code == 0

    async def _keep(self, container: Document) -> None:
        """Run a container, again and again where its pod wants that, and probe it."""
        state = self.states[container["name"]]
        policy = container.get("restartPolicy") or self._document["spec"]["restartPolicy"]
        while True:
            async with self._started(container) as process, trio.open_nursery() as nursery:
                if process is None:
                    # Nothing runs that could be probed.
                    state.started = state.ready = True
                    self._change()
                    await trio.sleep_forever()
                nursery.start_soon(self._probe, container, state)
                code = await process.wait()
                nursery.cancel_scope.cancel()
            state.running = state.started = state.ready = False
            state.process = None
            if policy == "Never" or (policy == "OnFailure" and code == 0):
                state.code = code
                self._change()
                return
            state.restarts += 1
            state.waiting = "CrashLoopBackOff"
            self._change()
            await trio.sleep(1)

    @asynccontextmanager
    async def _started(self, container: Document) -> AsyncIterator[Program | None]:
        state = self.states[container["name"]]
        image = self._kubelet.image(container["image"])
        while image is None:
            state.waiting = "ErrImagePull"
            self._change()
            await trio.sleep_forever()
        if not image.entry or container["name"] in NETWORK_SETUP:
            state.running = True
            self._change()
            yield None
            return
        env = await volumes.environment(self._api, self._document, container, self._address)
        env |= image.env
        words = [
            *(container.get("command") or image.entry),
            *(container.get("args") or []),
        ]
        start = Container(
            self._network,
            [volumes.expand(word, env) for word in words],
            self._user(container),
            self._mounts(container),
        ).start
        log = self._kubelet.log(*self.key, container["name"])
        async with running(start, log, env, grace=0) as process:
            state.process = process
            state.running = True
            self._change()
            yield process

    def _user(self, container: Document) -> int:
        for level in (container, self._document["spec"]):
            user = (level.get("securityContext") or {}).get("runAsUser")
            if user is not None:
                return int(user)
        return 0

    def _mounts(self, container: Document) -> dict[str, Path]:
        mounts = {"/etc/hosts": self._kubelet.hosts(self.key[0])}
        for mount in container.get("volumeMounts") or []:
            inside = self._folders[mount["name"]]
            path = mount.get("subPath") or mount.get("subPathExpr")
            mounts[mount["mountPath"].rstrip("/")] = inside / path if path else inside
        return mounts

    async def _probe(self, container: Document, state: State) -> None:
        """Look until the container is started, then whether it is ready, for ever."""
        for probe in (container.get("startupProbe"), container.get("readinessProbe")):
            if probe is not None:
                while not await self._passes(container, probe):
                    await trio.sleep(LOOK)
            state.started = True
            self._change()
        state.ready = True
        self._change()
        probe = container.get("readinessProbe")
        if probe is None:
            return
        failures = 0
        while True:
            await trio.sleep(1)
            failures = 0 if await self._passes(container, probe) else failures + 1
            ready = failures < min(2, probe.get("failureThreshold", 3))
            if ready != state.ready:
                state.ready = ready
                self._change()

    async def _passes(self, container: Document, probe: Document) -> bool:
        if "httpGet" in probe:
            request = probe["httpGet"]
            port = _port(container, request["port"])
            return await _get(self._address, port, request.get("path", "/"))
        if "tcpSocket" in probe:
            with suppress(OSError), trio.move_on_after(1):
                stream = await trio.open_tcp_stream(
                    self._address, _port(container, probe["tcpSocket"]["port"])
                )
                await stream.aclose()
                return True
            return False
        return True

    async def _stop(self) -> None:
        """End the containers as a kubelet does: the sidecars after all others."""
        metadata = self._document["metadata"]
        grace = metadata.get("deletionGracePeriodSeconds")
        if grace is None:
            grace = self._document["spec"].get("terminationGracePeriodSeconds", 30)
        async with trio.open_nursery() as nursery:
            for container in self._containers:
                nursery.start_soon(self._end, container, grace)
        for container in reversed(self._inits):
            await self._end(container, grace)

    async def _end(self, container: Document, grace: float) -> None:
        process = self.states[container["name"]].process
        if process is None or process.poll() is not None:
            return
        began = trio.current_time()
        hook = (container.get("lifecycle") or {}).get("preStop") or {}
        with trio.move_on_after(grace):
            if "sleep" in hook:
                await trio.sleep(hook["sleep"]["seconds"])
            elif "httpGet" in hook:
                port = _port(container, hook["httpGet"]["port"])
                await _get(self._address, port, hook["httpGet"].get("path", "/"), grace)
        await end(process, max(0, began + grace - trio.current_time()))

    def _phase(self) -> str:
        states = [self.states[each["name"]] for each in self._containers]
        plain = [each for each in self._inits if each.get("restartPolicy") != "Always"]
        if any(self.states[each["name"]].code for each in plain):
            return "Failed"
        if all(state.code is not None for state in states):
            return "Failed" if any(state.code for state in states) else "Succeeded"
        started = any(state.running or state.restarts or state.code is not None for state in states)
        return "Running" if started else "Pending"

    @property
    def ready(self) -> bool:
        """Whether all that serves in it says that it is ready."""
        sidecars = [each for each in self._inits if each.get("restartPolicy") == "Always"]
        serving = [self.states[each["name"]] for each in (*sidecars, *self._containers)]
        going = self._phase() == "Running" and not self._deleted.is_set()
        return going and all(state.ready for state in serving)

    async def _report(self) -> None:
        told = -1
        while True:
            await self._until(lambda: told != self._changes)  # noqa: B023 - asked at once
            told = self._changes
            await self._write_status()

    async def _write_status(self) -> None:
        with suppress(RefusedError, OSError, Quiet):
            await self._api.merge(f"{self._path}/status", {"status": self._status()})

    def _status(self) -> Document:
        phase = self._phase()
        ready = self.ready
        initialized = all(
            self.states[each["name"]].started or self.states[each["name"]].code == 0
            for each in self._inits
        )
        now = _now()
        conditions = [
            {"type": kind, "status": str(value), "lastTransitionTime": now}
            for kind, value in (
                ("PodScheduled", True),
                ("Initialized", initialized),
                ("ContainersReady", ready),
                ("Ready", ready),
            )
        ]
        ours = {each["type"] for each in conditions}
        others = self._document.get("status", {}).get("conditions", [])
        # An eviction leaves one that the Job's controller reads.
        conditions += [each for each in others if each["type"] not in ours]
        return {
            "phase": phase,
            "hostIP": NODE,
            "hostIPs": [{"ip": NODE}],
            "podIP": self._address,
            "podIPs": [{"ip": self._address}],
            "startTime": self._began,
            "conditions": conditions,
            "initContainerStatuses": [self._container_status(each) for each in self._inits],
            "containerStatuses": [self._container_status(each) for each in self._containers],
        }

    def _container_status(self, container: Document) -> Document:
        state = self.states[container["name"]]
        current: Document
        if state.code is not None:
            reason = "Error" if state.code else "Completed"
            current = {
                "terminated": {
                    "exitCode": state.code,
                    "reason": reason,
                    "startedAt": self._began,
                    "finishedAt": _now(),
                }
            }
        elif state.running:
            current = {"running": {"startedAt": self._began}}
        else:
            current = {"waiting": {"reason": state.waiting}}
        return {
            "name": container["name"],
            "image": container["image"],
            "imageID": container["image"],
            "containerID": f"program://{self.key[1]}/{container['name']}",
            "started": state.started,
            "ready": state.ready,
            "restartCount": state.restarts,
            "state": current,
        }


def _port(container: Document, port: int | str) -> int:
    for named in container.get("ports") or []:
        if named.get("name") == port:
            return int(named["containerPort"])
    return int(port)


async def _get(host: str, port: int, path: str, limit: float = 2) -> bool:
    """Whether a page answers with a status below 400, within a time in seconds."""
    with suppress(OSError, trio.BrokenResourceError), trio.move_on_after(limit):
        async with await trio.open_tcp_stream(host, port) as stream:
            await stream.send_all(
                f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode()
            )
            answer = b""
            while b"\n" not in answer and (data := await stream.receive_some()):
                answer += data
            words = answer.split(b" ", 2)
            return len(words) > 1 and words[1][:1] in (b"2", b"3")
    return False


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _node() -> Document:
    labels = {"kubernetes.io/hostname": NAME, "kubernetes.io/os": "linux"}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NAME, "labels": labels}}


def _node_status() -> Document:
    room = {"cpu": "64", "memory": "256Gi", "pods": "1000", "ephemeral-storage": "100Gi"}
    return {
        "capacity": room,
        "allocatable": room,
        "addresses": [
            {"type": "InternalIP", "address": NODE},
            {"type": "Hostname", "address": NAME},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": PORT}},
        "nodeInfo": {
            "kubeletVersion": "v1.37.2",
            "operatingSystem": "linux",
            "architecture": "amd64",
            "machineID": "",
            "systemUUID": "",
            "bootID": "",
            "kernelVersion": "",
            "osImage": "",
            "containerRuntimeVersion": "program://1",
            "kubeProxyVersion": "",
        },
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "StandIn",
                "lastHeartbeatTime": _now(),
                "lastTransitionTime": _now(),
            }
        ],
    }
