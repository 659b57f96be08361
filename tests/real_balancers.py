"""Real balancers, each started once with many ports: HAProxy, nginx, Envoy.

What a port does is some lines of the program's own configuration. ``{one}`` in them
stands for the address of a place of that name, ``{folder}`` for where files are. With
nginx ``{listen}`` is the beginning of that directive, and ``{name}`` a name that no other
section has.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_echo.rehearsal.process import Envoy, find_envoy

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence

__all__ = ["cluster", "envoy", "filter_", "haproxy", "listener", "nginx", "tcp", "tls"]

_STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")

_HAPROXY = """
defaults
  mode tcp
  timeout connect 1s
  timeout client 5s
  timeout server 5s
  retries 0
"""

_READY = "server {{ {listen}; return ''; }}"

_NGINX = """
load_module {module};
daemon off; master_process off; pid {folder}/nginx.pid;
events {{ worker_connections 1024; }}
stream {{
  limit_conn_zone $remote_addr zone=clients:1m;
{servers}
}}
"""

_TYPE = "type.googleapis.com/envoy.extensions"


@asynccontextmanager
async def haproxy(
    folder: Path, sections: Sequence[str], places: Mapping[str, str]
) -> AsyncGenerator[list[str]]:
    """Run HAProxy with a ``listen`` section for each; yields HOST:PORT of each."""
    program = _program("haproxy")
    with _ports(len(sections) + 1) as ports:
        lines = [_HAPROXY]
        for port, section in zip(ports, [*sections, ""], strict=True):
            bind, *rest = section.format(folder=folder, **places).split("\n")
            lines += [f"listen on-{port}", f"  bind 127.0.0.1:{port} {bind}", *rest]
        path = folder / "haproxy.cfg"
        path.write_text("\n".join([*lines, ""]))
        async with _running([program, "-db", "-f", str(path)], ports[-1]):
            yield [f"127.0.0.1:{port}" for port in ports]


@asynccontextmanager
async def nginx(
    folder: Path, sections: Sequence[str], places: Mapping[str, str]
) -> AsyncGenerator[list[str]]:
    """Run nginx with a ``server`` for each; yields HOST:PORT of each."""
    program = _program("nginx")
    with _ports(len(sections) + 1) as ports:
        servers = [
            section.format(
                listen=f"listen 127.0.0.1:{port}", name=f"on-{port}", folder=folder, **places
            )
            for port, section in zip(ports, [*sections, _READY], strict=True)
        ]
        path = folder / "nginx.conf"
        text = _NGINX.format(module=_STREAM, folder=folder, servers="\n".join(servers))
        path.write_text(text)
        async with _running([program, "-e", "stderr", "-c", str(path)], ports[-1]):
            yield [f"127.0.0.1:{port}" for port in ports]


@asynccontextmanager
async def envoy(
    folder: Path, listeners: Sequence[dict[str, Any]], places: Mapping[str, str]
) -> AsyncGenerator[list[str]]:
    """Run Envoy with these listeners and a cluster for each place; yields HOST:PORT of each."""
    with _ports(len(listeners)) as ports:
        resources = {
            "listeners": [
                {"name": str(port), "address": _address(f"127.0.0.1:{port}")} | each
                for port, each in zip(ports, listeners, strict=True)
            ],
            "clusters": [
                each
                for name, place in places.items()
                for each in (cluster(name, place), cluster(f"{name}-narrow", place, most=1))
            ],
        }
        admin = {"address": _address("127.0.0.1:0")}
        path = folder / "envoy.json"
        path.write_text(json.dumps({"admin": admin, "static_resources": resources}))
        async with trio.open_nursery() as nursery:
            await nursery.start(Envoy(find_envoy(), folder).run, path)
            yield [f"127.0.0.1:{port}" for port in ports]
            nursery.cancel_scope.cancel()


def cluster(name: str, place: str, *, most: int = 1024) -> dict[str, Any]:
    """A cluster of one address, with at most so many connections."""
    endpoint = {"endpoint": {"address": _address(place)}}
    return {
        "name": name,
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [{"max_connections": most}]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def listener(*filters: dict[str, Any], before: str = "", **chain: Any) -> dict[str, Any]:
    """A listener with one filter chain, and perhaps a filter before that."""
    kind, _, name = before.rpartition(".")
    found = [filter_(f"filters.listener.{kind}", name)] if before else []
    return {"listener_filters": found, "filter_chains": [{"filters": list(filters), **chain}]}


def filter_(kind: str, name: str, **settings: Any) -> dict[str, Any]:
    """An extension of Envoy: ``filters.network.rbac.v3`` and ``RBAC``, and its settings."""
    return {"name": kind, "typed_config": {"@type": f"{_TYPE}.{kind}.{name}", **settings}}


def tcp(**weights: int) -> dict[str, Any]:
    """Draws a cluster by weight; ``_`` in a name stands for ``-``."""
    drawn = [{"name": name.replace("_", "-"), "weight": each} for name, each in weights.items()]
    clusters = {"clusters": drawn}
    kind = "filters.network.tcp_proxy.v3"
    return filter_(kind, "TcpProxy", stat_prefix="tcp", weighted_clusters=clusters)


def tls(folder: Path) -> dict[str, Any]:
    """Ends TLS with ``both.pem`` of a folder."""
    file = {"filename": str(folder / "both.pem")}
    pair = {"certificate_chain": file, "private_key": file}
    kind = "transport_sockets.tls.v3"
    settings = {"tls_certificates": [pair]}
    return filter_(kind, "DownstreamTlsContext", common_tls_context=settings)


def _address(place: str) -> dict[str, Any]:
    """HOST:PORT as Envoy has it."""
    host, port = place.split(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


def _program(name: str) -> str:
    """Where a program is, or skip the test."""
    if name == "nginx" and not _STREAM.exists():
        pytest.skip(f"needs nginx's module for TCP, {_STREAM}")
    return shutil.which(name) or pytest.skip(f"needs {name}")


@contextmanager
def _ports(count: int) -> Iterator[list[int]]:
    """Ports that nobody else is given meanwhile, and that a server can listen on."""
    with ExitStack() as held:
        ports = []
        for _ in range(count):
            # Both sides allow reuse, and only one of them listens.
            sock = held.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", 0))
            ports.append(sock.getsockname()[1])
        yield ports


@asynccontextmanager
async def _running(command: list[str], port: int) -> AsyncGenerator[None]:
    """Run a program that listens on a port once it is ready; it ends with the block."""
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(trio.run_process, command, stderr=subprocess.PIPE, check=False)
        )
        try:
            with trio.fail_after(10):
                while not await _connects(port):
                    assert process.poll() is None, f"{command} ended at once"
                    await trio.sleep(0.01)
            yield
        finally:
            process.kill()


async def _connects(port: int) -> bool:
    """Whether somebody listens."""
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        return False
    await stream.aclose()
    return True
