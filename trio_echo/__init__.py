"""trio-echo: proof of how raw TCP traffic is split.

The Python API is small:

* `serve` runs the echo server in a nursery of yours, as `ServerConfig` says.
* `probe` judges how a route splits connections, as `ProbeConfig` says, and
  returns a `Report`.

Names are loaded when they are first used, so that importing one of the pure
modules, such as `trio_echo.framing`, does not pull in trio.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trio_echo.errors import ConfigError, TrioEchoError
    from trio_echo.prober import ProbeConfig, ProbeTLS, Report, Verdict, probe
    from trio_echo.server import Server, ServerConfig, serve

__all__ = [
    "ConfigError",
    "ProbeConfig",
    "ProbeTLS",
    "Report",
    "Server",
    "ServerConfig",
    "TrioEchoError",
    "Verdict",
    "probe",
    "serve",
]

_ROOMS = {
    "ConfigError": "trio_echo.errors",
    "ProbeConfig": "trio_echo.prober",
    "ProbeTLS": "trio_echo.prober",
    "Report": "trio_echo.prober",
    "Server": "trio_echo.server",
    "ServerConfig": "trio_echo.server",
    "TrioEchoError": "trio_echo.errors",
    "Verdict": "trio_echo.prober",
    "probe": "trio_echo.prober",
    "serve": "trio_echo.server",
}


def __getattr__(name: str) -> object:
    """Load a public name from its room when it is first used."""
    if name not in _ROOMS:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value: object = getattr(import_module(_ROOMS[name]), name)
    globals()[name] = value
    return value
