"""The node's network: a namespace of its own for each pod, and rules in place of kube-proxy.

Each pod has one address and one veth pair. All traffic between pods is routed by
the node, never bridged, so that the node's connection tracking sees both directions
of every connection and can put a Service's address back into the answers.
"""

from __future__ import annotations

import itertools
import os
import signal
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from cluster.processes import run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

NODE = "10.244.0.1"
PODS = "10.244.0.0/16"
SERVICES = "10.96.0.0/16"
PROXY_USER = 1337
"""The user of a sidecar: what it sends is not redirected to it again."""

SIDECAR_RULES = f"""
table ip sidecar {{
  chain output {{
    type nat hook output priority -100
    meta skuid {PROXY_USER} return
    ip daddr 127.0.0.0/8 return
    meta l4proto tcp redirect to :15001
  }}
  chain prerouting {{
    type nat hook prerouting priority -100
    tcp dport {{ 15008, 15020, 15021, 15090 }} return
    meta l4proto tcp redirect to :15006
  }}
}}
"""
"""What Istio's init container or CNI plugin sets up in a pod that has a sidecar."""

_numbers = itertools.count(256)


async def set_up_node() -> None:
    """Give the node its address, and make it a router. Once for a network namespace."""
    Path("/run/netns").mkdir(parents=True, exist_ok=True)
    await run("ip", "link", "set", "lo", "up")
    await run("ip", "address", "add", f"{NODE}/32", "dev", "lo")
    # Service addresses are unknown to every interface: without a route nobody would
    # send to them, and the rules below would never see a packet.
    await run("ip", "route", "add", SERVICES, "dev", "lo", "src", NODE)
    for setting, value in (("ip_forward", 1), ("ip_unprivileged_port_start", 0)):
        path = trio.Path(f"/proc/sys/net/ipv4/{setting}")
        await path.write_text(str(value))


@asynccontextmanager
async def pod_network() -> AsyncIterator[tuple[str, str]]:
    """A network namespace with one address: yields its name and the address."""
    number = next(_numbers)
    name = f"pod{number}"
    address = str(IPv4Address("10.244.0.0") + number)
    await run("ip", "netns", "add", name)
    try:
        await run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        await run("ip", "link", "set", name, "up")
        await run("ip", "route", "add", f"{address}/32", "dev", name, "src", NODE)
        inside = f"""
            link set lo up
            address add {address}/32 dev eth0
            link set eth0 up
            route add {NODE} dev eth0 scope link
            route add default via {NODE}
        """
        await run("ip", "-netns", name, "-batch", "-", stdin=inside)
        await run(
            *("nsenter", f"--net=/run/netns/{name}"),
            *("sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start"),
        )
        yield name, address
    finally:
        with trio.CancelScope(shield=True):
            # A program that was killed may have left children: none may outlive its pod.
            for process in (await run("ip", "netns", "pids", name)).split():
                with suppress(ProcessLookupError):
                    os.kill(int(process), signal.SIGKILL)
            await run("ip", "netns", "delete", name)


async def redirect_to_sidecar(namespace: str) -> None:
    """Send all that a pod's application sends and gets through the pod's sidecar."""
    await run("nsenter", f"--net=/run/netns/{namespace}", "nft", "-f", "-", stdin=SIDECAR_RULES)


async def route_services(services: Mapping[tuple[str, int], Sequence[tuple[str, int]]]) -> None:
    """Lead each Service's address and port to one of its endpoints, drawn at random.

    A Service without an endpoint refuses its connections, as with kube-proxy.
    """
    chains, branches, closed = [], [], []
    for number, ((address, port), endpoints) in enumerate(sorted(services.items())):
        if not endpoints:
            closed.append(f"ip daddr {address} tcp dport {port} reject with tcp reset")
            continue
        choice = ", ".join(
            f"{index} : {host} . {target}" for index, (host, target) in enumerate(endpoints)
        )
        draw = f"numgen random mod {len(endpoints)} map {{ {choice} }}"
        chains.append(f"chain s{number} {{\n meta l4proto tcp dnat ip to {draw}\n}}")
        branches.append(f"{address} . {port} : goto s{number}")
    lead = f"ip daddr . tcp dport vmap {{ {', '.join(branches)} }}" if branches else ""
    refuse = "\n".join(closed)
    # A pod that is led to itself would answer itself without the node in between.
    hosts = sorted({host for endpoints in services.values() for host, _ in endpoints})
    pairs = ", ".join(f"{host} . {host}" for host in hosts)
    hairpin = f"ip saddr . ip daddr {{ {pairs} }} masquerade" if hosts else ""
    await run(
        *("nft", "-f", "-"),
        stdin=f"""
        table ip services
        delete table ip services
        table ip services {{
          {chr(10).join(chains)}
          chain output {{
            type nat hook output priority -100
            {lead}
          }}
          chain prerouting {{
            type nat hook prerouting priority -100
            {lead}
          }}
          chain own {{
            type filter hook output priority 0
            {refuse}
          }}
          chain forward {{
            type filter hook forward priority 0
            {refuse}
          }}
          chain postrouting {{
            type nat hook postrouting priority 100
            {hairpin}
          }}
        }}
        """,
    )
