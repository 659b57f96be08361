"""``trio-echo serve``: the backend whose answers name it."""

from __future__ import annotations

import functools
import re
import resource
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - typer reads the annotations at run time
from typing import TYPE_CHECKING, Annotated, Any

import trio
import typer

from trio_echo.cli.command import make_command
from trio_echo.cli.logs import LogFormat, LogLevel, logging_to
from trio_echo.cli.options import option
from trio_echo.cli.signals import expect, received
from trio_echo.errors import ConfigError
from trio_echo.framing import DEFAULT_MAX_LINE
from trio_echo.server.config import ServerConfig, TLSConfig
from trio_echo.server.service import Server
from trio_echo.server.service import serve as run_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

__all__ = ["parse", "serve"]


@dataclass(frozen=True, slots=True)
class Settings:
    """All that the command line of ``serve`` says."""

    config: ServerConfig
    log_format: LogFormat
    log_level: LogLevel


_LISTENING = "Listening"
_LIMITS = "Limits"
_TLS = "TLS"
_LOG = "Log, on stderr"


def _option(subject: str, flag: str, metavar: str | None, text: str) -> Any:
    """Declare an option, and the environment variable of its name."""
    variable = "TRIO_ECHO_" + flag.removeprefix("--").upper().replace("-", "_")
    return option(subject, metavar, text, flag, envvar=variable)


def settings(
    ports: Annotated[
        str,
        typer.Argument(
            metavar="PORTS",
            envvar="TRIO_ECHO_PORTS",
            help="Port to listen on, or several such as 9000,9001; 0 for any free port.",
        ),
    ],
    prefix: Annotated[
        str,
        typer.Argument(
            metavar="PREFIX",
            envvar="TRIO_ECHO_PREFIX",
            help="Name in front of every answer; '' for a plain echo.",
        ),
    ],
    *,
    host: Annotated[
        list[str] | None,
        _option(
            _LISTENING,
            "--host",
            "ADDRESS",
            "Listen on this address. Repeat it for several. [default: every address]",
        ),
    ] = None,
    admin_port: Annotated[
        int | None,
        _option(_LISTENING, "--admin-port", "PORT", "Serve /livez, /readyz and /metrics here."),
    ] = None,
    greeting: Annotated[
        bool,
        _option(_LISTENING, "--greeting", None, "Speak first: send PREFIX and LF at once."),
    ] = False,
    proxy_protocol: Annotated[
        bool,
        _option(
            _LISTENING,
            "--proxy-protocol",
            None,
            "Expect a PROXY header, version 1 or 2, at the beginning of each connection: log"
            " the client's address from it, and end a connection without one.",
        ),
    ] = False,
    max_line: Annotated[
        str,
        _option(
            _LIMITS, "--max-line", "BYTES", "End a client that sends a longer line, such as 1Mi."
        ),
    ] = str(DEFAULT_MAX_LINE),
    max_connections: Annotated[
        int | None,
        _option(
            _LIMITS,
            "--max-connections",
            "N",
            "Serve at most N clients at a time; more wait. [default: what the limits of open"
            " files and memory allow]",
        ),
    ] = None,
    max_memory: Annotated[
        str | None,
        _option(
            _LIMITS,
            "--max-memory",
            "BYTES",
            "End the clients that hold the most before this much is used, such as 256Mi."
            " [default: the limit of the cgroup]",
        ),
    ] = None,
    idle_timeout: Annotated[
        float,
        _option(
            _LIMITS, "--idle-timeout", "SECONDS", "End a client when no byte moves for this long."
        ),
    ] = 3600.0,
    drain_timeout: Annotated[
        float,
        _option(
            _LIMITS,
            "--drain-timeout",
            "SECONDS",
            "After SIGTERM or SIGINT, give clients this long to finish, then cut the rest.",
        ),
    ] = 10.0,
    tls_ports: Annotated[
        str | None,
        _option(_TLS, "--tls-ports", "PORTS", "Also listen on these ports, with TLS."),
    ] = None,
    tls_cert: Annotated[
        Path | None, _option(_TLS, "--tls-cert", "FILE", "Certificate chain, in PEM.")
    ] = None,
    tls_key: Annotated[
        Path | None,
        _option(_TLS, "--tls-key", "FILE", "Private key, in PEM, if --tls-cert does not hold it."),
    ] = None,
    tls_client_ca: Annotated[
        Path | None,
        _option(
            _TLS,
            "--tls-client-ca",
            "FILE",
            "Accept only clients with a certificate of these authorities, in PEM.",
        ),
    ] = None,
    log_format: Annotated[
        LogFormat,
        _option(
            _LOG,
            "--log-format",
            "console|json",
            "Log each event as a line of text, or as a JSON object.",
        ),
    ] = LogFormat.CONSOLE,
    log_level: Annotated[
        LogLevel,
        _option(
            _LOG,
            "--log-level",
            "LEVEL",
            "Log this level and those above: debug, info, warning, error.",
        ),
    ] = LogLevel.INFO,
    log_lines: Annotated[
        bool, _option(_LOG, "--log-lines", None, "Also log each request and response.")
    ] = False,
) -> Settings:
    """Answer every line with PREFIX in front, as `PREFIX line`.

    SIGTERM or Ctrl-C drains: open clients are served to their end, then it
    exits with 0, or with 1 if it had to cut some. A second signal cuts at once.

    Each setting can come from the environment: --max-line from
    TRIO_ECHO_MAX_LINE, PORTS from TRIO_ECHO_PORTS. The command line wins.

    Examples:
    trio-echo serve 9000 one
    trio-echo serve 9000,9001 two --admin-port 9090
    """
    config = ServerConfig(
        ports=_ports("ports", ports),
        prefix=prefix,
        hosts=host or (),
        max_line=_bytes("max_line", max_line),
        max_connections=max_connections,
        max_memory=None if max_memory is None else _bytes("max_memory", max_memory),
        idle_timeout=idle_timeout,
        drain_timeout=drain_timeout,
        tls=_tls(tls_ports, tls_cert, tls_key, tls_client_ca),
        greeting=greeting,
        proxy_protocol=proxy_protocol,
        admin_port=admin_port,
        log_lines=log_lines,
    )
    return Settings(config, log_format, log_level)


@functools.wraps(settings)
def serve(**options: Any) -> None:
    """Run the command."""
    said = settings(**options)
    _raise_descriptor_limit()
    expect()  # a signal drains
    with logging_to(said.log_format, said.log_level):
        code = trio.run(_serve_until_signalled, said.config)
    raise typer.Exit(code)


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> ServerConfig:
    """Read a command line of ``serve`` as a container holds it, without running it.

    Args:
        arguments: what follows ``serve``.
        environment: the container's; this process's own does not count.

    Raises:
        ConfigError: a value cannot work.
        typer.TyperException: the words cannot be understood.
    """
    command, variables = _parser()
    # Values from the environment rank below options, as defaults do.
    defaults: dict[str, str | list[str]] = {
        name: environment[variable].split() if name in _REPEATED else environment[variable]
        for name, variable in variables.items()
        if environment.get(variable)
    }
    said: Settings = command.main(list(arguments), standalone_mode=False, default_map=defaults)
    return said.config


_REPEATED = {"host"}
"""Options that take several values, which stand in one variable with blanks between."""


@functools.cache
def _parser() -> tuple[Any, Mapping[str, str]]:
    """The command line alone, deaf to this process's environment, and its variables by name."""
    command = make_command("serve", settings)
    variables: dict[str, str] = {}
    for each in command.params:
        variables[str(each.name)] = str(each.envvar)
        each.envvar = None
    return command, variables


def _ports(field: str, text: str) -> list[int]:
    """Read a comma list of ports."""
    ports = [port.strip() for port in text.split(",")]
    # Python's own int takes more than a port number looks like, such as 90_00.
    if not all(re.fullmatch("[0-9]{1,5}", port) for port in ports):
        raise ConfigError(field, f"must be port numbers separated by commas, got {text!r}")
    return [int(port) for port in ports]


def _bytes(field: str, text: str) -> int:
    """Read a number of bytes as Kubernetes writes it: 268435456, 256Mi, 1G."""
    match = re.fullmatch("([0-9]{1,18})(|[kMG]|[KMG]i)", text)
    if match is None:
        raise ConfigError(field, f"must be a number of bytes, such as 65536 or 256Mi, got {text!r}")
    factor = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
    return int(match[1]) * factor[match[2]]


def _tls(
    ports: str | None, cert: Path | None, key: Path | None, client_ca: Path | None
) -> TLSConfig | None:
    """Put the options about TLS together."""
    if ports is None:
        if cert or key or client_ca:
            raise ConfigError("tls_ports", "is missing; name the ports that are to speak TLS")
        return None
    if cert is None:
        raise ConfigError("tls_cert", "is missing; --tls-ports needs a certificate")
    return TLSConfig(ports=_ports("tls_ports", ports), cert=cert, key=key, client_ca=client_ca)


def _raise_descriptor_limit() -> None:
    """Use as many descriptors as may be used: each connection is one.

    The usual soft limit of 1024 is for programs that call select(2).
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS promises more than it gives
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve_until_signalled(config: ServerConfig) -> int:
    """Serve; the first SIGINT or SIGTERM drains, the second cuts. Return the exit code."""
    with received() as signals:
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as serving:
                server: Server = await serving.start(run_server, config)
                nursery.start_soon(_end_on_signals, signals, server)
            nursery.cancel_scope.cancel()
    return 1 if server.dropped_connections else 0


async def _end_on_signals(signals: AsyncIterator[int], server: Server) -> None:
    """Drain at the first signal, cut at the next."""
    async for _ in signals:
        if server.ready:
            server.drain()
        else:
            server.cut()
