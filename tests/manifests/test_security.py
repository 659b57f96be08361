"""Restricted Pod Security, field by field: a refused pod is seen only in events."""

from __future__ import annotations

import pytest
from kustomized import FOLDERS, Document, container, every, pick, render

DOCUMENTS = render(*FOLDERS)
JOBS = [
    {"kind": "Job", "metadata": template["metadata"], "spec": metric["provider"]["job"]["spec"]}
    for template in every(DOCUMENTS, "AnalysisTemplate")
    for metric in template["spec"]["metrics"]
    if "job" in metric["provider"]
]
"""Those that Argo's controller makes."""

WORKLOADS = [each for each in DOCUMENTS if each["kind"] in {"Deployment", "Job", "Rollout"}] + JOBS
ACCOUNTS = {
    each["metadata"]["name"]: each["automountServiceAccountToken"]
    for each in every(DOCUMENTS, "ServiceAccount")
}
workloads = pytest.mark.parametrize("workload", WORKLOADS, ids=lambda d: d["metadata"]["name"])


def test_the_namespace_enforces_restricted() -> None:
    """What the tests below say, the API server holds."""
    labels = pick(render("base"), "Namespace")["metadata"]["labels"]

    for mode in ("enforce", "audit", "warn"):
        assert labels[f"pod-security.kubernetes.io/{mode}"] == "restricted"


@workloads
def test_the_pod_is_restricted(workload: Document) -> None:
    """Not root, the runtime's system call filter, nothing of the host's."""
    pod = workload["spec"]["template"]["spec"]
    context = pod["securityContext"]

    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert {"hostNetwork", "hostPID", "hostIPC", "volumes"}.isdisjoint(pod)
    assert {"sysctls", "seLinuxOptions", "appArmorProfile"}.isdisjoint(context)


@workloads
def test_the_container_is_restricted(workload: Document) -> None:
    """No capability, no way to gain one, nothing to write on."""
    context = container(workload)["securityContext"]

    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert "privileged" not in context
    assert all("hostPort" not in port for port in container(workload).get("ports", []))


@workloads
def test_a_server_obeys_from_its_first_millisecond(workload: Document) -> None:
    """One with a command of its own begins as the image does.

    A container's first process loses a SIGTERM for which it has no handler yet.
    """
    command = container(workload).get("command")

    if workload["kind"] != "Job" and command is not None:
        assert command[:2] == ["env", "--block-signal=TERM"]


@workloads
def test_the_user_is_high_and_not_the_sidecar_s(workload: Document) -> None:
    """Istio's redirection lets the traffic of user 1337 pass by the sidecar."""
    contexts = [
        workload["spec"]["template"]["spec"]["securityContext"],
        container(workload)["securityContext"],
    ]
    users = {context["runAsUser"] for context in contexts if "runAsUser" in context}

    assert users
    assert all(user >= 10_000 for user in users)
    assert 1337 not in users


@workloads
def test_nothing_holds_a_token(workload: Document) -> None:
    """Neither the pod nor the account of its own hands one out."""
    pod = workload["spec"]["template"]["spec"]

    assert pod["automountServiceAccountToken"] is False
    # The default account of a namespace is not the manifests': there the pod alone decides.
    account = pod.get("serviceAccountName", "default")
    assert ACCOUNTS.get(account, account != "default") is False


@workloads
def test_every_container_has_requests_and_limits(workload: Document) -> None:
    """A namespace with quotas takes them, and none can take a node down."""
    resources = container(workload)["resources"]

    for bound in ("requests", "limits"):
        assert {"cpu", "memory"} <= {*resources[bound]}
