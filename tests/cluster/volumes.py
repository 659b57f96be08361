"""What a pod's volumes hold, and what its environment says, from the API server's objects."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

import trio
from cluster.api import Api, Document, RefusedError
from cluster.network import NODE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


async def fill(api: Api, pod: Document, address: str, folder: Path) -> dict[str, Path]:
    """Fill a folder for each volume of a pod. Gives the folders by volume name.

    Waits for ConfigMaps and Secrets that are not there yet, as a kubelet does.
    """
    folders = {}
    for volume in pod["spec"].get("volumes") or []:
        inside = folder / volume["name"]
        inside.mkdir(parents=True)
        inside.chmod(0o777)
        folders[volume["name"]] = inside
        sources = [volume]
        mode = 0o644
        if "projected" in volume:
            sources = volume["projected"]["sources"]
        elif "downwardAPI" in volume:
            sources = [{"downwardAPI": volume["downwardAPI"]}]
        for source in sources:
            for name, content in (await _files(api, pod, address, source)).items():
                path = inside / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                path.chmod(mode)
    return folders


async def _files(
    api: Api, pod: Document, address: str, source: Mapping[str, Any]
) -> dict[str, bytes]:
    namespace = pod["metadata"]["namespace"]
    if wanted := source.get("serviceAccountToken"):
        token = await _token(api, pod, wanted)
        return {wanted["path"]: token.encode()}
    if wanted := source.get("downwardAPI"):
        return {
            item["path"]: pod_field(pod, address, item["fieldRef"]["fieldPath"]).encode()
            for item in wanted.get("items") or []
            if "fieldRef" in item
        }
    for kind, decode in (("configMap", str.encode), ("secret", base64.b64decode)):
        if wanted := source.get(kind):
            name = wanted.get("secretName") or wanted.get("name")
            path = f"/api/v1/namespaces/{namespace}/{kind.lower()}s/{name}"
            found = await read_when_there(api, path, optional=wanted.get("optional", False))
            data = {key: decode(value) for key, value in (found.get("data") or {}).items()}
            items = wanted.get("items")
            if items is None:
                return data
            return {item["path"]: data[item["key"]] for item in items if item["key"] in data}
    return {}


async def read_when_there(api: Api, path: str, *, optional: bool = False) -> Document:
    """Read an object as soon as it exists; an optional one may be missing."""
    while True:
        try:
            return await api.get(path)
        except RefusedError:
            if optional:
                return {}
            await trio.sleep(0.2)


async def _token(api: Api, pod: Document, wanted: Mapping[str, Any]) -> str:
    metadata = pod["metadata"]
    account = pod["spec"].get("serviceAccountName", "default")
    spec: Document = {
        "expirationSeconds": wanted.get("expirationSeconds", 3600),
        "boundObjectRef": {
            "kind": "Pod",
            "apiVersion": "v1",
            "name": metadata["name"],
            "uid": metadata["uid"],
        },
    }
    if "audience" in wanted:
        spec["audiences"] = [wanted["audience"]]
    made = await api.create(
        f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/{account}/token",
        {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec},
    )
    token: str = made["status"]["token"]
    return token


def pod_field(pod: Document, address: str, path: str) -> str:
    """A field of the downward API."""
    metadata, spec = pod["metadata"], pod["spec"]
    if found := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
        values = metadata.get(found[1]) or {}
        return str(values.get(found[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        values = metadata.get(path.removeprefix("metadata.")) or {}
        return "".join(f'{key}="{_quoted(value)}"\n' for key, value in sorted(values.items()))
    return str(
        {
            "metadata.name": metadata["name"],
            "metadata.namespace": metadata["namespace"],
            "metadata.uid": metadata["uid"],
            "spec.nodeName": spec.get("nodeName", ""),
            "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
            "status.podIP": address,
            "status.podIPs": address,
            "status.hostIP": NODE,
            "status.hostIPs": NODE,
        }[path]
    )


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


async def environment(api: Api, pod: Document, container: Document, address: str) -> dict[str, str]:
    """The environment of a container, as its ``env`` says."""
    found = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOSTNAME": pod["metadata"]["name"],
        "HOME": "/",
        "KUBERNETES_SERVICE_HOST": "10.96.0.1",
        "KUBERNETES_SERVICE_PORT": "443",
    }
    namespace = pod["metadata"]["namespace"]
    for entry in container.get("env") or []:
        source = entry.get("valueFrom") or {}
        if "fieldRef" in source:
            value = pod_field(pod, address, source["fieldRef"]["fieldPath"])
        elif "resourceFieldRef" in source:
            # The limits of a container are not enforced here: it has the machine's two cores.
            value = "2" if "cpu" in source["resourceFieldRef"]["resource"] else str(2**30)
        elif reference := source.get("configMapKeyRef") or source.get("secretKeyRef"):
            kind = "configmaps" if "configMapKeyRef" in source else "secrets"
            path = f"/api/v1/namespaces/{namespace}/{kind}/{reference['name']}"
            optional = reference.get("optional", False)
            data = (await read_when_there(api, path, optional=optional)).get("data") or {}
            if reference["key"] not in data:
                continue
            value = data[reference["key"]]
            if kind == "secrets":
                value = base64.b64decode(value).decode()
        else:
            value = expand(entry.get("value") or "", found)
        found[entry["name"]] = value
    return found


def expand(text: str, values: Mapping[str, str]) -> str:
    """Put variables into ``$(NAME)``, as Kubernetes does. Unknown ones stay as they are."""
    return re.sub(r"\$\(([\w.-]+)\)", lambda found: values.get(found[1], found[0]), text)
