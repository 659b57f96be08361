"""Servers that end under load: who was connected is served, or counted."""

from __future__ import annotations

import os
import random
import sys

import pytest
from fire.drains import PLANS, Plan, run

TIMES = int(os.environ.get("TRIO_ECHO_TIMES", "20"))
"""Drains in all."""


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_whoever_is_connected_is_served_or_counted(plan: Plan) -> None:
    """Whatever the way, the load and the deadline; and the exit code tells whether all were."""
    times = max(1, round(TIMES * plan.share))
    _, faults = run(plan, times, sys.executable, random.randrange(1000))  # noqa: S311 - no secret
    assert not faults
