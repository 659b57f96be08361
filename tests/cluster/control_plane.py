"""etcd, kube-apiserver and kube-controller-manager, with certificates of their own."""

from __future__ import annotations

import json
import ssl
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

import trio
import trustme
from cluster.api import Api, Quiet, RefusedError
from cluster.network import NODE, SERVICES
from cluster.processes import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from cluster.processes import Program

PORT = 6443
CONTROLLERS = (
    "*",
    # These judge a node by its heartbeats, which the stand-in for the kubelet does not send.
    "-node-lifecycle-controller",
    "-taint-eviction-controller",
)


@asynccontextmanager
async def control_plane(
    programs: Mapping[str, Path], folder: Path, logs: Path
) -> AsyncIterator[Api]:
    """A control plane that answers: yields a client with every right.

    A kubeconfig with the same rights stands in the folder.
    """
    certificates = Certificates(folder)
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:

        async def keep(name: str, *options: str) -> None:
            process = await stack.enter_async_context(
                running([str(programs[name]), *options], logs / f"{name}.log")
            )
            nursery.start_soon(_must_live, name, process, logs)

        await keep(
            "etcd",
            f"--data-dir={folder}/etcd",
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
            # Nothing here has to survive a crash, and a sync a write is slow.
            "--unsafe-no-fsync",
        )
        await keep(
            "kube-apiserver",
            "--etcd-servers=http://127.0.0.1:2379",
            f"--secure-port={PORT}",
            f"--advertise-address={NODE}",
            f"--service-cluster-ip-range={SERVICES}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            f"--client-ca-file={folder}/ca.pem",
            f"--tls-cert-file={folder}/server.pem",
            f"--tls-private-key-file={folder}/server.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={folder}/server.key",
            f"--service-account-signing-key-file={folder}/server.key",
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-client-certificate={folder}/admin.pem",
            f"--kubelet-client-key={folder}/admin.key",
            # Webhooks are called at a pod's address: the node has no kube-proxy at first.
            "--enable-aggregator-routing=true",
        )
        api = Api(NODE, PORT, certificates.context)
        await _answers(api, "/readyz")
        await keep(
            "kube-controller-manager",
            f"--kubeconfig={folder}/kubeconfig",
            f"--root-ca-file={folder}/ca.pem",
            f"--service-account-private-key-file={folder}/server.key",
            f"--controllers={','.join(CONTROLLERS)}",
            "--leader-elect=false",
        )
        await _answers(api, "/api/v1/namespaces/default/serviceaccounts/default")
        try:
            yield api
        finally:
            nursery.cancel_scope.cancel()


class Certificates:
    """An authority, the API server's certificate and an administrator's, in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        authority = trustme.CA()
        names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost")
        first = str(next(IPv4Network(SERVICES).hosts()))
        server = authority.issue_cert(*names, NODE, "127.0.0.1", first)
        admin = authority.issue_cert(
            "administrator", common_name="administrator", organization_name="system:masters"
        )
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        for name, issued in (("server", server), ("admin", admin)):
            issued.private_key_pem.write_to_path(str(folder / f"{name}.key"))
            chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
            (folder / f"{name}.pem").write_bytes(chain)
        self.context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        admin.configure_cert(self.context)
        (folder / "kubeconfig").write_text(json.dumps(_kubeconfig(folder)))


def _kubeconfig(folder: Path) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [
            {
                "name": "here",
                "cluster": {
                    "server": f"https://{NODE}:{PORT}",
                    "certificate-authority": f"{folder}/ca.pem",
                },
            }
        ],
        "users": [
            {
                "name": "administrator",
                "user": {
                    "client-certificate": f"{folder}/admin.pem",
                    "client-key": f"{folder}/admin.key",
                },
            }
        ],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "administrator"}}],
    }


async def _answers(api: Api, path: str) -> None:
    with trio.fail_after(120):
        while True:
            try:
                await api.get(path)
            except (OSError, trio.BrokenResourceError, Quiet, RefusedError):
                await trio.sleep(0.2)
            else:
                return


async def _must_live(name: str, process: Program, logs: Path) -> None:
    code = await process.wait()
    raise RuntimeError(f"{name} ended with exit code {code}: see {logs / f'{name}.log'}")
