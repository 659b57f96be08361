"""The rehearsal: a route of a cluster, on this machine, with a real Envoy."""

from __future__ import annotations

from trio_echo.rehearsal.errors import ManifestError, RehearsalError
from trio_echo.rehearsal.judge import Course, CrossCheck, courses, judge
from trio_echo.rehearsal.process import find_envoy
from trio_echo.rehearsal.route import Route, built_in
from trio_echo.rehearsal.stage import Stage, open_stage

__all__ = [
    "Course",
    "CrossCheck",
    "ManifestError",
    "RehearsalError",
    "Route",
    "Stage",
    "built_in",
    "courses",
    "find_envoy",
    "judge",
    "open_stage",
]
