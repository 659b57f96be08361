"""A stand-in for kube-proxy and cluster DNS, kept in step with the API server."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import trio
from cluster.network import route_services

if TYPE_CHECKING:
    from pathlib import Path

    from cluster.api import Api, Document


class Services:
    """Leads Services to their ready endpoints, and writes an /etc/hosts for each namespace."""

    def __init__(self, api: Api, folder: Path) -> None:
        self._api = api
        self._folder = folder
        self._services: dict[str, Document] = {}
        self._slices: dict[str, Document] = {}
        self._changed = trio.Event()
        self._namespaces: set[str] = set()
        folder.mkdir(parents=True)

    def hosts(self, namespace: str) -> Path:
        """The file that is /etc/hosts in a namespace. It is rewritten in place."""
        path = self._folder / namespace
        if namespace not in self._namespaces:
            self._namespaces.add(namespace)
            path.write_text(self._names(namespace))
        return path

    def addresses(self) -> dict[tuple[str, str], str]:
        """The address of each Service, by namespace and name; headless ones have none."""
        return {
            (each["metadata"]["namespace"], each["metadata"]["name"]): each["spec"]["clusterIP"]
            for each in self._services.values()
            if each["spec"].get("clusterIP") not in (None, "", "None")
        }

    async def run(self) -> None:
        """Follow Services and EndpointSlices until cancelled."""
        async with trio.open_nursery() as nursery:

            def keep(kept: dict[str, Document]) -> None:
                def seen(event: str, document: Document) -> None:
                    uid = document["metadata"]["uid"]
                    if event == "DELETED":
                        kept.pop(uid, None)
                    else:
                        kept[uid] = document
                    self._changed.set()

                path = "/api/v1/services"
                if kept is self._slices:
                    path = "/apis/discovery.k8s.io/v1/endpointslices"
                nursery.start_soon(self._api.watch, path, seen)

            keep(self._services)
            keep(self._slices)
            while True:
                await self._changed.wait()
                # Changes come in groups.
                await trio.sleep(0.05)
                self._changed = trio.Event()
                for namespace in self._namespaces:
                    self.hosts(namespace).write_text(self._names(namespace))
                await route_services(self._routes())

    def _of(self, service: Document) -> list[Document]:
        """The slices of a Service."""
        metadata = service["metadata"]
        return [
            each
            for each in self._slices.values()
            if each["metadata"]["namespace"] == metadata["namespace"]
            and each["metadata"].get("labels", {}).get("kubernetes.io/service-name")
            == metadata["name"]
        ]

    def _routes(self) -> dict[tuple[str, int], list[tuple[str, int]]]:
        routes: dict[tuple[str, int], list[tuple[str, int]]] = {}
        for service in self._services.values():
            address = service["spec"].get("clusterIP")
            if address in (None, "", "None"):
                continue
            targets: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
            for each in self._of(service):
                for port in each.get("ports") or []:
                    targets[port.get("name") or ""] += [
                        (host, port["port"]) for host in _ready(each)
                    ]
            for port in service["spec"].get("ports") or []:
                routes[address, port["port"]] = targets[port.get("name") or ""]
        return routes

    def _names(self, namespace: str) -> str:
        lines = ["127.0.0.1 localhost"]
        for service in self._services.values():
            metadata = service["metadata"]
            here = f"{metadata['name']}.{metadata['namespace']}"
            whole = f"{here}.svc.cluster.local"
            names = [whole, f"{whole}.", f"{here}.svc", here]
            if metadata["namespace"] == namespace:
                names.append(metadata["name"])
            address = service["spec"].get("clusterIP")
            if address == "None":
                addresses = {host for each in self._of(service) for host in _ready(each)}
            else:
                addresses = {address} - {None, ""}
            lines += [f"{each} {' '.join(names)}" for each in sorted(addresses)]
        return "\n".join([*lines, ""])


def _ready(endpoint_slice: Document) -> list[str]:
    return [
        each["addresses"][0]
        for each in endpoint_slice.get("endpoints") or []
        if each.get("conditions", {}).get("ready", True)
    ]
