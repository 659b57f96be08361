"""Deployments and Services, as far as they are carried out. Pure data."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec

from trio_echo.rehearsal.documents import Lenient, Metadata

Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]


class Variable(Lenient):
    """One environment variable; a value from elsewhere is not known here."""

    noted: ClassVar[frozenset[str]] = frozenset({"value_from"})
    name: str
    value: str | None = None
    value_from: Any = None


class ContainerPort(Lenient):
    """A port of a container, which a Service may name."""

    container_port: int
    name: str | None = None
    protocol: str = "TCP"


class Container(Lenient):
    """What runs in a pod."""

    name: str
    image: str = ""
    command: list[str] | None = None
    args: list[str] | None = None
    env: list[Variable] | None = None
    ports: list[ContainerPort] | None = None


class PodSpec(Lenient):
    """What runs in a pod."""

    containers: list[Container]


class PodMetadata(Lenient):
    """The labels of a pod."""

    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    name: str | None = None


class Template(Lenient):
    """What each pod of a Deployment is made from."""

    spec: PodSpec
    metadata: PodMetadata = msgspec.field(default_factory=PodMetadata)


class Selector(Lenient):
    """Which pods are a Deployment's own."""

    match_labels: dict[str, str] | None = None


class DeploymentSpec(Lenient):
    """Pods, and how many."""

    template: Template
    selector: Selector = msgspec.field(default_factory=Selector)
    replicas: Annotated[int, msgspec.Meta(ge=0)] = 1


class Deployment(Lenient):
    """The whole document."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: DeploymentSpec


class ServicePort(Lenient):
    """One port of a Service, and the port of the pods behind it."""

    noted: ClassVar[frozenset[str]] = frozenset({"node_port"})
    port: Port
    name: str | None = None
    protocol: str = "TCP"
    app_protocol: str | None = None
    target_port: Port | str | None = None
    node_port: int | None = None


class ServiceSpec(Lenient):
    """Ports, and the pods behind them."""

    ports: list[ServicePort] | None = None
    selector: dict[str, str] | None = None


class ServiceDocument(Lenient):
    """The whole document."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: ServiceSpec
