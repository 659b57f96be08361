"""trio-echo: proof of how raw TCP traffic is split.

The Python API is small:

* `serve` runs the echo server in a nursery of yours, as `ServerConfig` says.
* `probe` judges how a route splits connections, as `ProbeConfig` says, and
  returns a `Report`.

Names are loaded when they are first used. So a module without I/O, such as
`trio_echo.framing`, can be imported without trio.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trio_echo.errors import ConfigError, TrioEchoError
    from trio_echo.prober.config import ProbeConfig, ProbeTLS
    from trio_echo.prober.counts import Counts, Outcome
    from trio_echo.prober.schedule import Tally, probe
    from trio_echo.prober.split import Expectation, Interval, Verdict
    from trio_echo.prober.words import Backend, Report, Run
    from trio_echo.server import Server, ServerConfig, TLSConfig, serve

    __version__: str

__all__ = [
    "Backend",
    "ConfigError",
    "Counts",
    "Expectation",
    "Interval",
    "Outcome",
    "ProbeConfig",
    "ProbeTLS",
    "Report",
    "Run",
    "Server",
    "ServerConfig",
    "TLSConfig",
    "Tally",
    "TrioEchoError",
    "Verdict",
    "__version__",
    "probe",
    "serve",
]


def load_from(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """Make the ``__getattr__`` of a package whose names are loaded when first used.

    Args:
        package: its name.
        homes: the module that each of its names comes from.
    """

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    return load


_HOMES = {
    "Backend": "trio_echo.prober.words",
    "ConfigError": "trio_echo.errors",
    "Counts": "trio_echo.prober.counts",
    "Expectation": "trio_echo.prober.split",
    "Interval": "trio_echo.prober.split",
    "Outcome": "trio_echo.prober.counts",
    "ProbeConfig": "trio_echo.prober.config",
    "ProbeTLS": "trio_echo.prober.config",
    "Report": "trio_echo.prober.words",
    "Run": "trio_echo.prober.words",
    "Server": "trio_echo.server.service",
    "ServerConfig": "trio_echo.server.config",
    "TLSConfig": "trio_echo.server.config",
    "Tally": "trio_echo.prober.schedule",
    "TrioEchoError": "trio_echo.errors",
    "Verdict": "trio_echo.prober.split",
    "probe": "trio_echo.prober.schedule",
    "serve": "trio_echo.server.service",
}
_load = load_from(__name__, _HOMES)


def __getattr__(name: str) -> object:
    """Load a public name when it is first used."""
    if name == "__version__":
        return import_module("importlib.metadata").version("trio-echo")
    return _load(name)


def __dir__() -> list[str]:
    """List what is public, loaded or not."""
    return sorted({*globals(), *__all__})
