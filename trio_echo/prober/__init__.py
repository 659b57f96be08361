"""The probe: opens connections, counts who answered, judges the split."""

from __future__ import annotations

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
