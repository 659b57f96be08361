"""The manifests as a cluster gets them: rendered by the kubectl that the tests install."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import yaml

Document: TypeAlias = dict[str, Any]

MANIFESTS = Path(__file__).parents[1] / "manifests"
KUBECTL = Path(sysconfig.get_path("scripts")) / "kubectl"
FOLDERS = sorted(
    str(file.parent.relative_to(MANIFESTS))
    for file in MANIFESTS.rglob("kustomization.yaml")
    if yaml.safe_load(file.read_text(encoding="utf-8"))["kind"] == "Kustomization"
)
"""Every folder that can be applied, relative to the manifests; components cannot."""


@cache
def render_text(folder: str) -> str:
    """Render one folder as ``kubectl apply -k`` would, without a cluster."""
    return subprocess.run(
        [KUBECTL, "kustomize", MANIFESTS / folder],
        check=True,
        capture_output=True,
        text=True,
        # A configuration of the user's must not matter, nor be looked for.
        env=os.environ | {"KUBECONFIG": os.devnull},
    ).stdout


def render(*folders: str) -> list[Document]:
    """Render folders, one after the other, into documents that the caller may change."""
    return [document for folder in folders for document in yaml.safe_load_all(render_text(folder))]


def pick(documents: list[Document], kind: str, name: str | None = None) -> Document:
    """Find the one document of a kind, or of a kind and name.

    Raises:
        ValueError: there is none, or more than one.
    """
    [found] = every(documents, kind, name)
    return found


def every(documents: list[Document], kind: str, name: str | None = None) -> list[Document]:
    """Find all documents of a kind, and of a name if one is given."""
    return [
        document
        for document in documents
        if document["kind"] == kind and name in {None, document["metadata"]["name"]}
    ]


def container(workload: Document) -> Document:
    """The only container of a Deployment or a Job.

    Raises:
        ValueError: it has more than one.
    """
    [only] = workload["spec"]["template"]["spec"]["containers"]
    found: Document = only
    return found


def matches(selector: dict[str, str], labels: dict[str, str]) -> bool:
    """Whether a selector by equality, which must not be empty, selects these labels."""
    return bool(selector) and selector.items() <= labels.items()


def weights(documents: list[Document]) -> dict[str, int]:
    """The weight of each version in a route, whichever dialect says it."""
    if routes := every(documents, "TCPRoute"):
        [rule] = routes[0]["spec"]["rules"]
        return {ref["name"].removeprefix("tcp-echo-"): ref["weight"] for ref in rule["backendRefs"]}
    [route] = pick(documents, "VirtualService")["spec"]["tcp"]
    return {leg["destination"]["subset"]: leg["weight"] for leg in route["route"]}
