"""trio-echo: proof of how raw TCP traffic is split.

The Python API is small:

* `serve` runs the echo server in a nursery of yours, as `ServerConfig` says.
* `probe` judges how a route splits connections, as `ProbeConfig` says, and
  returns a `Report`.
* `rehearse` runs Kubernetes manifests on this machine with a real Envoy, and
  returns a `Result` with a report for each route.

The other names are what those take, give and raise. Names are loaded when
they are first used, so that a module without I/O, such as `trio_echo.framing`,
can be imported without trio. Nothing is logged until you set up `logging`.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing takes 5 ms, which each start of the command would wait for
if TYPE_CHECKING:
    from trio_echo.api import rehearse
    from trio_echo.errors import ConfigError, ManifestError, RehearsalError, TrioEchoError
    from trio_echo.prober.config import ProbeConfig, ProbeTLS
    from trio_echo.prober.counts import Counts, Outcome
    from trio_echo.prober.schedule import Tally, probe
    from trio_echo.prober.split import Expectation, Interval, Verdict
    from trio_echo.prober.words import Backend, Report, Run
    from trio_echo.rehearsal.run import Events, Result
    from trio_echo.server.config import ServerConfig, TLSConfig
    from trio_echo.server.service import Server, serve

    __version__: str

__all__ = [
    "Backend",
    "ConfigError",
    "Counts",
    "Events",
    "Expectation",
    "Interval",
    "ManifestError",
    "Outcome",
    "ProbeConfig",
    "ProbeTLS",
    "RehearsalError",
    "Report",
    "Result",
    "Run",
    "Server",
    "ServerConfig",
    "TLSConfig",
    "Tally",
    "TrioEchoError",
    "Verdict",
    "__version__",
    "probe",
    "rehearse",
    "serve",
]

_HOMES = {
    "Backend": "prober.words",
    "ConfigError": "errors",
    "Counts": "prober.counts",
    "Events": "rehearsal.run",
    "Expectation": "prober.split",
    "Interval": "prober.split",
    "ManifestError": "errors",
    "Outcome": "prober.counts",
    "ProbeConfig": "prober.config",
    "ProbeTLS": "prober.config",
    "RehearsalError": "errors",
    "Report": "prober.words",
    "Result": "rehearsal.run",
    "Run": "prober.words",
    "Server": "server.service",
    "ServerConfig": "server.config",
    "TLSConfig": "server.config",
    "Tally": "prober.schedule",
    "TrioEchoError": "errors",
    "Verdict": "prober.split",
    "probe": "prober.schedule",
    "rehearse": "api",
    "serve": "server.service",
}
"""The module that each name comes from."""


def __getattr__(name: str) -> object:
    """Load a public name when it is first used."""
    from importlib import import_module  # noqa: PLC0415 - not before signals are minded

    if name == "__version__":
        return import_module("importlib.metadata").version("trio-echo")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """List what is public, loaded or not."""
    return sorted({*globals(), *__all__})
