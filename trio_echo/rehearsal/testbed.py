"""The testbed: a route's backends and an Envoy before them, on this machine's loopback.

Everything runs in one nursery, and ends with it.
"""

from __future__ import annotations

import json
import socket
import tempfile
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from trio_echo.errors import RehearsalError, TrioEchoError
from trio_echo.rehearsal import envoy
from trio_echo.rehearsal.dataplane import configure
from trio_echo.rehearsal.process import Envoy, how_to_install
from trio_echo.rehearsal.route import DRAIN, Endpoint, manifest_ports
from trio_echo.server.config import TLSConfig
from trio_echo.server.service import serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping

    from trio_echo.rehearsal.route import Listener, Route
    from trio_echo.server.config import ServerConfig
    from trio_echo.server.service import Server

__all__ = ["Authority", "Testbed", "one_error", "open_testbed"]

_HOST = "127.0.0.1"
_MANAGERS = {"cluster": "cluster_manager.cds", "listener": "listener_manager.lds"}
_KINDS = ("endpoint", *_MANAGERS)


@asynccontextmanager
async def open_testbed(route: Route, binary: str, *, drain: int = DRAIN) -> AsyncIterator[Testbed]:
    """Run a route while the block lasts: its backends, and Envoy in front of them.

    One nursery holds all of it. Whatever ends the block, the backends'
    sockets, Envoy's process and the folder with its files are gone after it.

    Args:
        route: what to put up; `Testbed.change` replaces it later.
        binary: the path of Envoy.
        drain: seconds after which a replaced listener's connections are cut.

    Raises:
        RehearsalError: a backend or Envoy did not start, or ended by itself.
    """
    with one_error(), tempfile.TemporaryDirectory(prefix="trio-echo-") as folder:
        async with trio.open_nursery() as nursery:
            testbed = Testbed(route, Envoy(binary, Path(folder), drain), Path(folder), nursery)
            await testbed.open()
            yield testbed
            nursery.cancel_scope.cancel()


@contextmanager
def one_error() -> Iterator[None]:
    """Raise the project's own error by itself where a group holds nothing else.

    Nurseries wrap what their tasks raise. When one task failed for a known
    reason and the others were cancelled for it, that reason is the message.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        leaves = list(_leaves(group))
        known = [leaf for leaf in leaves if isinstance(leaf, TrioEchoError)]
        if len(known) != len(leaves):
            raise
        raise known[0] from group


def first_leaf(error: BaseException) -> BaseException:
    """The first exception in a group that is no group, or `error` itself."""
    return next(_leaves(error))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions in nested groups that are no groups themselves."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


class Authority:
    """A throw-away authority, good for as long as its folder is there.

    Attributes:
        path: PEM file with its certificate, for clients to trust.
    """

    def __init__(self, folder: Path) -> None:
        """Make an authority that keeps its files in `folder`.

        Raises:
            RehearsalError: what it is made with is not installed.
        """
        try:
            import trustme  # noqa: PLC0415 - part of an extra, and slow to load
        except ImportError:
            raise RehearsalError(
                "backends with TLS need certificates to rehearse with;"
                f" install what makes them with: {how_to_install()}"
            ) from None
        self._authority = trustme.CA()
        self._folder = folder
        self.path = folder / "authority.pem"
        self._authority.cert_pem.write_to_path(str(self.path))

    def certificate(self, names: Iterable[str]) -> Path:
        """A PEM file with key and certificate for these server names."""
        wanted = sorted({"localhost", *names})
        path = self._folder / f"{sha256(' '.join(wanted).encode()).hexdigest()}.pem"
        if not path.exists():
            made = self._authority.issue_cert(*wanted)
            path.touch(mode=0o600)
            made.private_key_and_cert_chain_pem.write_to_path(str(path))
        return path


@dataclass(frozen=True, slots=True)
class _Replica:
    """One server that runs, and what it was told."""

    config: ServerConfig
    server: Server


class Testbed:
    """A route that is up.

    Attributes:
        route: what is up now.
        ports: the port of this machine for each listener, by its name.
        envoy: the process in front.
        authority: who signed the certificates of backends with TLS; None
            before there is one.
        drain: seconds after which connections of a replaced listener are cut.
        cuts: the names of the chains whose open connections the last change
            cuts, when the drain time is over.
    """

    def __init__(self, route: Route, process: Envoy, folder: Path, nursery: trio.Nursery) -> None:
        """Prepare the testbed; nothing runs before `open`."""
        self.route = route
        self.ports: dict[str, int] = {}
        self.envoy = process
        self.authority: Authority | None = None
        self._folder = folder
        self._nursery = nursery
        self._wanted: dict[str, int] = {}
        self._replicas: dict[tuple[str, int], _Replica] = {}
        self._retired: list[_Replica] = []
        self._clusters: dict[str, envoy.Json] = {}
        self._listeners: dict[str, envoy.Json] = {}
        self._endpoints: dict[str, envoy.Json] = {}
        self._addresses: dict[Endpoint, tuple[str, int]] = {}
        self._prefixes: dict[tuple[str, int], str] = {}
        self._version = 0
        self.drain = process.drain
        self.cuts: frozenset[str] = frozenset()

    async def open(self) -> None:
        """Start the backends, then Envoy with the route."""
        await self._put_up(self.route)
        start = envoy.bootstrap(self._file("listener"), self._file("cluster"))
        boot = self._folder / "bootstrap.json"
        boot.write_text(json.dumps(start))
        for kind in _KINDS:
            self._write(kind, self.route)
        await self._nursery.start(self.envoy.run, boot)
        try:
            await self._taken("listener", rejected=0)
        except RehearsalError:
            # Someone took a port since it was found free. Any other will do.
            self._wanted = dict.fromkeys(self._wanted, 0)
            self._version += 1
            self._write("listener", self.route)
            await self._taken("listener", rejected=1)
        self.ports = await self.envoy.listening()

    async def change(self, route: Route) -> None:
        """Put up another route in place of this one.

        Later connections go the new way, and nothing is refused meanwhile.
        Those that are open stay where they are, for good if their chain is
        the same, else until Envoy's drain time is over: see `cuts`. A backend
        that the new route does not need runs on for the connections it has.

        Raises:
            RehearsalError: Envoy refuses the route; the former one stays up.
        """
        good = dict(self._clusters), dict(self._endpoints), dict(self._addresses)
        await self._put_up(route)
        try:
            await self._hand_over(route)
        except RehearsalError:
            # The clusters may have been taken although the listeners were not.
            self._clusters, self._endpoints, self._addresses = good
            await self._hand_over(self.route)
            raise
        self.ports = await self.envoy.listening()
        self.route = route
        # Somebody else may take the port of a listener that is gone.
        self._wanted = {each.name: self._wanted[each.name] for each in route.listeners}

    def accepted(self) -> dict[str, int]:
        """How many connections the backends have accepted so far, by their prefix."""
        total: Counter[str] = Counter()
        for replica in [*self._replicas.values(), *self._retired]:
            total[replica.config.prefix] += replica.server.metrics.connections
        return dict(total)

    async def dialled(self) -> dict[str, int]:
        """How many connections Envoy has made so far, by the prefix of the backend."""
        total: Counter[str] = Counter()
        for (host, port), made in (await self.envoy.dialled()).items():
            total[self._prefixes[host, port]] += made
        return dict(total)

    async def _put_up(self, route: Route) -> None:
        """Start the servers that the route needs and that do not run yet."""
        for backend in route.backends:
            config = self._here(backend.config, route)
            for number in range(backend.replicas):
                key = (backend.name, number)
                running = self._replicas.get(key)
                if running is None or running.config != config:
                    server = await self._nursery.start(_run_backend, backend.name, config)
                    if running is not None:
                        self._retired.append(running)
                    running = self._replicas[key] = _Replica(config, server)
                real = zip(manifest_ports(backend.config), running.server.ports, strict=True)
                for port, here in real:
                    self._addresses[Endpoint(*key, port)] = (_HOST, here)
                    self._prefixes[_HOST, here] = config.prefix

    def _here(self, config: ServerConfig, route: Route) -> ServerConfig:
        """What a server is told on this machine: free loopback ports, our certificates."""
        tls = config.tls
        if tls is not None:
            chains = (chain for listener in route.listeners for chain in listener.chains)
            names = {chain.server_name for chain in chains}
            cert = self._authority().certificate(names)
            asked = self._authority().path if tls.client_ca else None
            tls = TLSConfig(ports=[0] * len(tls.ports), cert=cert, client_ca=asked)
        ports = [0] * len(config.ports)
        return replace(config, ports=ports, tls=tls, hosts=[_HOST], admin_port=None)

    async def _hand_over(self, route: Route) -> None:
        """Give Envoy another route, and wait until it has taken it in.

        Raises:
            RehearsalError: it does not.
        """
        self._version += 1
        self._write("endpoint", route)
        # The clusters before the listeners: a listener that names one that is
        # not there yet closes its connections.
        for kind, manager in _MANAGERS.items():
            before = await self.envoy.stats(manager)
            self._write(kind, route)
            await self._taken(kind, rejected=before[f"{manager}.update_rejected"])
        await self.envoy.took_endpoints(str(self._version))

    def _write(self, kind: str, route: Route) -> None:
        """Write what Envoy watches: clusters, their endpoints, or listeners."""
        machine = envoy.Machine(
            addresses=self._addresses,
            ports=self._choose_ports(route.listeners),
            folder=str(self._folder),
            certificate=self._certificate(route),
            authority=str(self.authority.path) if self.authority else "",
            client=self._client_certificate(route),
        )
        found = configure(route, machine)
        # Clusters of former routes stay: connections may still run through them.
        self._clusters |= {each["name"]: each for each in found.clusters}
        self._endpoints |= {each["cluster_name"]: each for each in found.endpoints}
        if kind == "endpoint":
            for name, resource in self._endpoints.items():
                self._replace(machine.endpoints_file(name), [resource], kind)
        else:
            resources = self._clusters.values() if kind == "cluster" else found.listeners
            if kind == "listener":
                new = {each["name"]: each for each in found.listeners}
                self.cuts = _replaced(self._listeners, new)
                self._listeners = new
            self._replace(self._file(kind), resources, kind)

    def _replace(self, file: str, resources: Iterable[envoy.Json], kind: str) -> None:
        """Replace the content of a file in one step."""
        content = envoy.discovery(str(self._version), resources, of=kind)
        new = self._folder / "new"
        new.write_text(json.dumps(content))
        new.replace(file)

    def _file(self, kind: str) -> str:
        """The path of a file that Envoy watches."""
        return str(self._folder / f"{kind}.json")

    def _certificate(self, route: Route) -> str:
        """The certificate of a gateway that ends TLS; empty where none does."""
        chains = [chain for listener in route.listeners for chain in listener.chains]
        if not any(chain.tls for chain in chains):
            return ""
        return str(self._authority().certificate({chain.server_name for chain in chains}))

    def _client_certificate(self, route: Route) -> str:
        """What the gateway shows to backends; empty where it shows nothing."""
        if not any(each.policy.certified for each in route.destinations().values()):
            return ""
        return str(self._authority().certificate({"client"}))

    def _authority(self) -> Authority:
        """The authority of this testbed, made when it is first needed."""
        if self.authority is None:
            self.authority = Authority(self._folder)
        return self.authority

    async def _taken(self, kind: str, *, rejected: int) -> None:
        """Wait until Envoy has taken in the file."""
        await self.envoy.took(_MANAGERS[kind], str(self._version), rejected=rejected)

    def _choose_ports(self, listeners: Iterable[Listener]) -> dict[str, int]:
        """The manifest's port for each listener where it is free, else any."""
        for listener in listeners:
            if listener.name not in self._wanted:
                taken = listener.port in self._wanted.values() or not _is_free(listener.port)
                self._wanted[listener.name] = 0 if taken else listener.port
        return self._wanted


def _replaced(old: Mapping[str, envoy.Json], new: Mapping[str, envoy.Json]) -> frozenset[str]:
    """The names of the chains that are not the same any more.

    Envoy keeps a chain, and its connections, where nothing else of the
    listener has changed.
    """
    found: set[str] = set()
    for name, listener in old.items():
        other = new.get(name, {})
        same = listener | {"filter_chains": []} == other | {"filter_chains": []}
        kept = other["filter_chains"] if same else []
        found |= {each["name"] for each in listener["filter_chains"] if each not in kept}
    return frozenset(found)


async def _run_backend(
    name: str,
    config: ServerConfig,
    *,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run one server of a backend until cancelled; its end is an error."""
    try:
        await serve(config, task_status=task_status)
    except Exception as error:  # Whatever it is, it is the end of the rehearsal.
        raise RehearsalError(f"backend {name} failed: {first_leaf(error)}") from error
    raise RehearsalError(f"backend {name} ended by itself")


def _is_free(port: int) -> bool:
    """Whether this user could listen on the port of loopback now."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((_HOST, port))
            trial.listen()
        except OSError:
            return False
    return True
