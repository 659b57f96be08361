"""A Deployment's container -> what a server is told. Pure.

The command line of ``serve`` is read by its own parser, which is handed in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from trio_echo.errors import TrioEchoError
from trio_echo.rehearsal.route import manifest_ports
from trio_echo.server import ServerConfig

if TYPE_CHECKING:
    from trio_echo.rehearsal.documents import Document
    from trio_echo.rehearsal.kubernetes_documents import Container

__all__ = ["ParseServe", "server_config"]

ParseServe: TypeAlias = Callable[[Sequence[str], Mapping[str, str]], ServerConfig]
"""The arguments after ``serve`` and the environment -> the configuration."""

_IMAGES = {"trio-echo", "tcp-echo-server"}
_ENTRY_POINTS = (
    ("trio-echo", "serve"),
    ("python", "-m", "trio_echo", "serve"),
    ("python3", "-m", "trio_echo", "serve"),
    ("tcp-echo",),
    ("tcp-echo-server",),
)
_DEFAULT_ARGUMENTS = ("9000", "hello")
_REFERENCE = re.compile(r"\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")


def server_config(
    container: Container, document: Document, path: str, parse: ParseServe
) -> ServerConfig | None:
    """What the container's server is told; None if it is no echo server of ours.

    Args:
        container: from the pod template at `path` of `document`.
        document: for complaints.
        path: the container's path in the document.
        parse: reads the command line of ``serve``.

    Raises:
        ManifestError: it runs ``serve`` with arguments that cannot work, or
            that are not known here.
    """
    environment = {each.name: each.value or "" for each in container.env or ()}
    command = [_expand(part, environment) for part in container.command or ()]
    arguments = [_expand(part, environment) for part in container.args or ()]
    if command:
        given = _after_entry_point(command)
        if given is None:
            return None
        arguments = given + arguments
    elif _image_name(container.image) not in _IMAGES:
        return None
    elif container.args is None:
        arguments = list(_DEFAULT_ARGUMENTS)
    for index, variable in enumerate(container.env or ()):
        if variable.value_from is not None and variable.name.startswith("TRIO_ECHO_"):
            raise document.error(
                f"{path}.env[{index}].valueFrom",
                f"{variable.name} comes from the cluster, which is not known here;"
                " give its value in the manifest",
            )
    try:
        config = parse(arguments, environment)
    except TrioEchoError as error:
        raise document.error(f"{path}.args", str(error)) from error
    every = manifest_ports(config)
    if 0 in every or len(set(every)) != len(every):
        raise document.error(f"{path}.args", "a Service needs ports that are given, and differ")
    return config


def _after_entry_point(command: list[str]) -> list[str] | None:
    """The arguments in a command that starts the server; None if it does not."""
    plain = (command[0].rpartition("/")[2], *command[1:])
    for entry in _ENTRY_POINTS:
        if plain[: len(entry)] == entry:
            return command[len(entry) :]
    return None


def _image_name(image: str) -> str:
    """The last part of an image's name, without tag and digest."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0]


def _expand(text: str, environment: Mapping[str, str]) -> str:
    """Put environment variables in, as Kubernetes does: ``$(NAME)``, ``$$`` for a dollar."""
    return _REFERENCE.sub(
        lambda found: "$" if found[1] is None else environment.get(found[1], found[0]), text
    )
