"""Each alert fires in its case and in no other, as promtool has it."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from kustomized import pick, render

if TYPE_CHECKING:
    from pathlib import Path

PROMTOOL = shutil.which("promtool")

LABELS = 'job="tcp-echo-watch", instance="watch:8080"'
VERDICTS = ("PASS", "FAIL", "INCONCLUSIVE", "UNMEASURED")

WELL = {
    "up": "1x40",
    'trio_echo_watch_connections_total{backend="one"}': "0+240x40",
    'trio_echo_watch_connections_total{backend="two"}': "0+60x40",
    'trio_echo_watch_failures_total{outcome="reset"}': "0x40",
    'trio_echo_watch_failures_total{outcome="refused"}': "0x40",
    'trio_echo_watch_held_lost_total{reason="reset"}': "0x40",
    'trio_echo_watch_held_lost_total{reason="eof-before-answer"}': "0x40",
    "trio_echo_watch_changes_total": "0x40",
    "trio_echo_watch_window_connections": "300x40",
    **{f'trio_echo_watch_verdict{{verdict="{each}"}}': "0x40" for each in VERDICTS},
    'trio_echo_watch_verdict{verdict="PASS"}': "1x40",
}
"""A watch that sees nothing wrong, for forty minutes: series, and a value each minute."""

QUIET: dict[str, set[str]] = {"1m": set(), "10m": set(), "40m": set()}

CASES: dict[str, tuple[dict[str, str], dict[str, set[str]]]] = {
    "all is well": ({}, QUIET),
    "a few connections fail": (
        {'trio_echo_watch_failures_total{outcome="reset"}': "0+2x40"},
        QUIET,
    ),
    "the split changes in minute 10": (
        {"trio_echo_watch_changes_total": "0x9 1x30"},
        {"11m": {"TrioEchoSplitChanged"}, "24m": {"TrioEchoSplitChanged"}, "26m": set()},
    ),
    "the split is proved wrong in minute 10": (
        {
            'trio_echo_watch_verdict{verdict="PASS"}': "1x9 0x30",
            'trio_echo_watch_verdict{verdict="FAIL"}': "0x9 1x30",
        },
        {"11m": set(), "13m": {"TrioEchoSplitWrong"}, "39m": {"TrioEchoSplitWrong"}},
    ),
    "nobody answers from minute 10 on": (
        {
            'trio_echo_watch_connections_total{backend="one"}': "0+240x10 2400x29",
            'trio_echo_watch_connections_total{backend="two"}': "0+60x10 600x29",
            'trio_echo_watch_failures_total{outcome="refused"}': "0x10 300+300x28",
        },
        {
            "11m": set(),
            "15m": {"TrioEchoNobodyAnswers"},
            "30m": {"TrioEchoNobodyAnswers", "TrioEchoConnectionsFail"},
        },
    ),
    "nobody has ever answered": (
        {
            'trio_echo_watch_connections_total{backend="one"}': "",
            'trio_echo_watch_connections_total{backend="two"}': "",
            'trio_echo_watch_failures_total{outcome="refused"}': "0+300x40",
            'trio_echo_watch_verdict{verdict="PASS"}': "0x40",
            'trio_echo_watch_verdict{verdict="UNMEASURED"}': "1x40",
        },
        {"5m": {"TrioEchoNobodyAnswers"}, "30m": {"TrioEchoNobodyAnswers"}},
    ),
    "one in fifty fails": (
        {'trio_echo_watch_failures_total{outcome="reset"}': "0+6x40"},
        {"4m": set(), "12m": {"TrioEchoConnectionsFail"}},
    ),
    "three held connections are cut in minute 10": (
        {'trio_echo_watch_held_lost_total{reason="reset"}': "0x9 3x30"},
        {"11m": {"TrioEchoHeldConnectionsLost"}, "16m": set()},
    ),
    "the watch is down from minute 10 on": (
        {
            "up": "1x9 0x30",
            **{name: f"{value[:-2]}9" for name, value in WELL.items() if name != "up"},
        },
        {"12m": set(), "17m": {"TrioEchoWatchDown"}},
    ),
    "the watch is gone": (dict.fromkeys(WELL, ""), {"4m": set(), "6m": {"TrioEchoWatchDown"}}),
}


def labelled(series: str) -> str:
    """A series of the one watch."""
    name, _, own = series.removesuffix("}").partition("{")
    return f"{name}{{{LABELS}{own and ', '}{own}}}"


def case(name: str, differs: dict[str, str], fires: dict[str, set[str]]) -> dict[str, Any]:
    """A test of promtool's: which alerts fire at which time."""
    alerts = [rule["alert"] for rule in rules()["groups"][0]["rules"]]
    series = {labelled(each): values for each, values in (WELL | differs).items() if values}
    return {
        "name": name,
        "interval": "1m",
        "input_series": [{"series": each, "values": values} for each, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}}) or vector(0)',
                "eval_time": time,
                "exp_samples": [{"labels": "{}", "value": int(alert in firing)}],
            }
            for time, firing in fires.items()
            for alert in alerts
        ],
    }


def rules() -> dict[str, Any]:
    """The rules as a Prometheus without the operator reads them."""
    found: dict[str, Any] = pick(render("watch/prometheus"), "PrometheusRule")["spec"]
    return found


def promtool(folder: Path, *arguments: str) -> str:
    """Run promtool in a folder that holds the rules."""
    (folder / "rules.yaml").write_text(json.dumps(rules()), encoding="utf-8")
    done = subprocess.run(
        [str(PROMTOOL), *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(PROMTOOL is None, reason="needs promtool, of Debian's prometheus")
def test_each_alert_fires_in_its_case_and_in_no_other(tmp_path: Path) -> None:
    """Before, during and after it."""
    tests = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [case(name, *parts) for name, parts in CASES.items()],
    }
    (tmp_path / "tests.yaml").write_text(json.dumps(tests), encoding="utf-8")

    assert "6 rules found" in promtool(tmp_path, "check", "rules", "rules.yaml")
    assert "SUCCESS" in promtool(tmp_path, "test", "rules", "tests.yaml")
    fired = {alert for _, times in CASES.values() for firing in times.values() for alert in firing}
    assert fired == {rule["alert"] for rule in rules()["groups"][0]["rules"]}
