"""The probe: opens connections, counts who answered, judges the split."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio_echo import load_from

if TYPE_CHECKING:
    from trio_echo.prober.config import ProbeConfig, ProbeTLS
    from trio_echo.prober.outcome import Outcome
    from trio_echo.prober.report import Backend, Report
    from trio_echo.prober.schedule import probe
    from trio_echo.prober.split import Interval, Verdict
    from trio_echo.prober.tally import Tally

__all__ = [
    "Backend",
    "Interval",
    "Outcome",
    "ProbeConfig",
    "ProbeTLS",
    "Report",
    "Tally",
    "Verdict",
    "probe",
]

__getattr__ = load_from(
    __name__,
    {
        "Backend": "trio_echo.prober.report",
        "Interval": "trio_echo.prober.split",
        "Outcome": "trio_echo.prober.outcome",
        "ProbeConfig": "trio_echo.prober.config",
        "ProbeTLS": "trio_echo.prober.config",
        "Report": "trio_echo.prober.report",
        "Tally": "trio_echo.prober.tally",
        "Verdict": "trio_echo.prober.split",
        "probe": "trio_echo.prober.schedule",
    },
)
