"""Servers behind balancers, restarted in turns: nobody is lost where the balancer is told first."""

from __future__ import annotations

import os

import pytest
from fire.restarts import BALANCERS, restart

TIMES = int(os.environ.get("TRIO_ECHO_TIMES", "20")) // 5


@pytest.mark.parametrize("name", BALANCERS)
def test_a_restart_loses_nobody(name: str) -> None:
    """With a preStop hook, however many restarts there are in a row."""
    done = restart(name, TIMES, moment=0.3, rate=200)
    assert done.lost == 0
    assert done.codes == [0] * TIMES


@pytest.mark.parametrize("name", BALANCERS)
def test_no_server_loses_anybody_without_a_hook_either(name: str) -> None:
    """A balancer may: it learns of the end from refused connections alone."""
    done = restart(name, TIMES, moment=0, rate=200)
    assert done.codes == [0] * TIMES
    assert done.counted == 0
