"""The watch: it stands where the route is, and what scrapes and alerts finds it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from documenting.pages import blocks
from kustomized import MANIFESTS, container, every, matches, pick, render

from trio_echo.monitor.request import Allowed
from trio_echo.prober.config import parse_expectation, split_target

FOLDERS = {"watch": "probe", "watch/gateway-api": "probe/gateway-api", "watch/mesh": "probe/mesh"}
PORT = 8080


@pytest.mark.parametrize(("folder", "probe"), FOLDERS.items())
def test_it_watches_what_the_job_judges(folder: str, probe: str) -> None:
    """The same entrance and the same expectation, with or without a sidecar."""
    watch, job = (
        pick(render(name), kind) for name, kind in ((folder, "Deployment"), (probe, "Job"))
    )
    args, judged = container(watch)["args"], container(job)["args"]

    assert container(watch)["command"][-2:] == ["trio-echo", "watch"]
    assert args[0] == judged[0]
    assert [each for each in args if each.startswith("--expect")] == judged[1:3]
    sidecars = [
        each["spec"]["template"]["metadata"]["labels"].get("sidecar.istio.io/inject")
        for each in (watch, job)
    ]
    assert sidecars[0] == sidecars[1]


def test_everything_that_belongs_to_it_finds_it() -> None:
    """Service, policy, monitor and probes meet at one port of one pod."""
    documents = render("watch")
    deployment, service = pick(documents, "Deployment"), pick(documents, "Service")
    monitor = pick(render("watch/prometheus"), "ServiceMonitor")["spec"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    [named] = container(deployment)["ports"]
    [port] = service["spec"]["ports"]
    [rule] = pick(documents, "NetworkPolicy")["spec"]["ingress"]

    assert f"--listen={PORT}" in container(deployment)["args"]
    assert named == {"name": "http", "containerPort": PORT}
    assert (port["targetPort"], port["port"]) == (named["name"], PORT)
    for selector in (
        deployment["spec"]["selector"]["matchLabels"],
        service["spec"]["selector"],
        pick(documents, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ):
        assert matches(selector, labels)
    assert matches(monitor["selector"]["matchLabels"], service["metadata"]["labels"])
    assert [endpoint["port"] for endpoint in monitor["endpoints"]] == [port["name"]]
    assert PORT in {each["port"] for each in rule["ports"]}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container(deployment)[probe]["httpGet"]["port"] == named["name"]


def test_nobody_takes_it_for_a_backend() -> None:
    """Its pods are outside of every selector of the base."""
    labels = pick(render("watch"), "Deployment")["spec"]["template"]["metadata"]["labels"]

    for service in every(render("base", "gateway-api"), "Service"):
        assert not matches(service["spec"]["selector"], labels)


def test_the_rules_ask_for_the_job_that_the_monitor_makes() -> None:
    """Its name is a label of the Service."""
    documents = render("watch/prometheus")
    label = pick(documents, "ServiceMonitor")["spec"]["jobLabel"]
    job = pick(render("watch"), "Service")["metadata"]["labels"][label]
    rules = pick(documents, "PrometheusRule")["spec"]["groups"][0]["rules"]

    assert {*re.findall('job="([^"]*)"', str(rules))} == {job}


def test_grafana_finds_the_dashboard() -> None:
    """By the label that its sidecar looks for; the file is what one imports by hand."""
    found = pick(render("watch/prometheus"), "ConfigMap", "tcp-echo-watch-dashboard")
    text = (MANIFESTS / "watch/prometheus/dashboard.json").read_text(encoding="utf-8")

    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert found["data"] == {"dashboard.json": text}
    dashboard = json.loads(text)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    # Whoever imports it has a Prometheus of another name.
    assert {*re.findall('"uid": "([^"]*)"', text)} == {"${datasource}", dashboard["uid"]}


def test_each_alert_says_what_to_do_and_stands_in_the_page() -> None:
    """In words: what is wrong, and where to look."""
    rules = pick(render("watch/prometheus"), "PrometheusRule")["spec"]["groups"][0]["rules"]
    page = Path(__file__).parents[2] / "docs" / "prometheus.md"

    for rule in rules:
        assert {*rule["annotations"]} == {"summary", "description", "runbook"}
        assert rule["labels"]["severity"] in {"warning", "critical"}
    listed = re.findall(r"^\| `(TrioEcho\w+)`", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert listed == [rule["alert"] for rule in rules]


def test_the_probe_of_the_operator_is_that_of_the_page() -> None:
    """The same question to the gate, whose Service and patterns fit."""
    probe = pick(render("gate/prometheus"), "Probe")["spec"]
    page = [yaml.safe_load(block) for block in blocks(Path("docs/prometheus.md"), "yaml")]
    [job] = [job for each in page for job in each["scrape_configs"] if "params" in job]
    service = pick(render("gate"), "Service")
    args = container(pick(render("gate"), "Deployment"))["args"]
    [target] = job["static_configs"][0]["targets"]
    host, port = split_target(target)

    assert probe["jobName"] == job["job_name"]
    assert (probe["interval"], probe["scrapeTimeout"]) == (
        job["scrape_interval"],
        job["scrape_timeout"],
    )
    assert probe["prober"]["path"] == job["metrics_path"]
    assert {each["name"]: each["values"] for each in probe["params"]} == job["params"]
    assert probe["targets"]["staticConfig"]["static"] == [target]
    address = "{name}.{namespace}".format_map(service["metadata"])
    assert probe["prober"]["url"] == f"{address}.svc:{service['spec']['ports'][0]['port']}"
    assert job["relabel_configs"][-1]["replacement"] == probe["prober"]["url"].replace(".svc", "")
    allowed = [arg.removeprefix("--allow=") for arg in args if arg.startswith("--allow=")]
    assert any(Allowed(pattern).matches(host, port) for pattern in allowed)
    judged = container(pick(render("probe"), "Job"))["args"]
    assert target == judged[0]
    assert parse_expectation("expect", job["params"]["expect"]) == parse_expectation(
        "expect", [arg.removeprefix("--expect=") for arg in judged if arg.startswith("--expect")]
    )
