"""Images and containers in a place of their own, and the network that they share.

Nothing of the machine's own podman is touched: storage, networks and settings lie
in one folder, and the processes run in the network namespace of the tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

NETWORK = "cluster"
ECHO, ADMIN = 9000, 8080
SUBNET = "10.89.42.0/24"
CONTAINERFILE = Path(__file__).parents[1] / "container" / "Containerfile"

# Soft and hard limits are equal because podman 4.3 swaps them; explicit because the
# machine's own may be higher than a container may set.
_CONTAINERS = """
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
network_config_dir = "{place}/networks"
"""

_STORAGE = """
[storage]
driver = "overlay"
graphroot = "{place}/graph"
runroot = "{place}/run"
"""


class Podman:
    """One podman whose whole state is a folder."""

    def __init__(self, place: Path) -> None:
        """Write the settings into `place`."""
        self.environment = os.environ | {
            "CONTAINERS_CONF": self._write(place, "containers.conf", _CONTAINERS),
            "CONTAINERS_STORAGE_CONF": self._write(place, "storage.conf", _STORAGE),
            # The kubelet's probes are not podman's: without this, a machine with
            # systemd runs them in the container, which has no curl.
            "DISABLE_HC_SYSTEMD": "true",
        }

    @staticmethod
    def _write(place: Path, name: str, text: str) -> str:
        """Write a file of settings and return its path."""
        (place / name).write_text(text.format(place=place), encoding="utf-8")
        return str(place / name)

    def run(self, *command: str | Path, text: str | None = None, check: bool = True) -> Result:
        """Run podman, or buildah, with these settings.

        Raises:
            AssertionError: it failed, with what it said.
        """
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            input=text,
            env=self.environment,
            check=False,
        )
        if check:
            assert not done.returncode, f"{' '.join(map(str, command))}\n{done.stderr}"
        return Result(done.returncode, done.stdout, done.stderr)

    def build(self, wheels: Path, base: str, tag: str, *options: str) -> None:
        """Build the image from the Containerfile and a folder of wheels."""
        self.run(
            *("buildah", "bud", "--isolation=chroot", "--pull-never", "--timestamp=0", *options),
            *(f"--build-arg={stage}_IMAGE={base}" for stage in ("BUILD", "RUNTIME")),
            *(f"--build-arg=VERSION={tag.rpartition(':')[2]}", f"--file={CONTAINERFILE}"),
            *(f"--tag={tag}", wheels),
        )

    def start(self, image: str, *arguments: str) -> Container:
        """Start a container as restricted as the manifests ask for."""
        hardened = ("--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL")
        options = ("--pull=never", f"--network={NETWORK}", "--security-opt=no-new-privileges")
        run = ("podman", "run", "--detach", *hardened, *options, image, *arguments)
        return Container(self, self.run(*run).out.strip())

    def inspect(self, name: str) -> Any:
        """What podman knows about a container or an image."""
        [found] = json.loads(self.run("podman", "inspect", name).out)
        return found

    def play(self, manifest: str) -> list[Container]:
        """Run the pods of a manifest and return the container of each."""
        play = ("podman", "kube", "play", f"--network={NETWORK}", "-")
        lines = self.run(*play, text=manifest).out.split()
        identifiers = [line for line in lines if len(line) == 64]
        found = [self.inspect(each) for each in identifiers if self._is_container(each)]
        return [Container(self, each["Id"], each["Pod"]) for each in found]

    def _is_container(self, identifier: str) -> bool:
        """Whether this is a container's and not a pod's."""
        return not self.run("podman", "container", "exists", identifier, check=False).code

    def end(self) -> None:
        """Remove every container, pod, network and image."""
        self.run("podman", "pod", "rm", "--all", "--force", "--time=0")
        self.run("podman", "rm", "--all", "--force", "--time=0")
        self.run("podman", "network", "prune", "--force")
        self.run("podman", "rmi", "--all", "--force")


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Container:
    """One running container, or the one of a pod."""

    podman: Podman
    identifier: str
    pod: str = ""

    @property
    def address(self) -> str:
        """Its address in the network, which a pod's containers share."""
        holder = self.identifier
        if self.pod:
            [pod] = [self.podman.run("podman", "pod", "inspect", self.pod).out]
            holder = json.loads(pod)["InfraContainerID"]
        networks = self.podman.inspect(holder)["NetworkSettings"]["Networks"]
        address: str = networks[NETWORK]["IPAddress"]
        return address

    @property
    def pid(self) -> int:
        """Its first process, seen from outside."""
        pid: int = self.podman.inspect(self.identifier)["State"]["Pid"]
        return pid

    def get(self, path: str) -> tuple[int, str]:
        """Ask its admin port, and return the status and the body."""
        url = f"http://{self.address}:{ADMIN}{path}"
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    async def until_listening(self, port: int) -> None:
        """Wait until a port takes connections.

        Raises:
            AssertionError: it does not in time; with what the container logged.
        """
        address = await trio.to_thread.run_sync(lambda: self.address)
        with trio.move_on_after(60):
            while True:
                # Briefly and again: a first packet that is lost, while the network
                # is still being put up, is repeated only after ever longer waits.
                with suppress(OSError), trio.move_on_after(1):
                    stream = await trio.open_tcp_stream(address, port)
                    return await stream.aclose()
                await trio.sleep(0.05)
        raise AssertionError(await trio.to_thread.run_sync(self.logs))

    async def until_status(self, path: str, status: int) -> None:
        """Wait until the admin port, which has to be open, answers with a status."""
        with trio.fail_after(60):
            while (  # noqa: ASYNC110 - the event is in another process
                await trio.to_thread.run_sync(self.get, path)
            )[0] != status:
                await trio.sleep(0.02)

    def terminate(self) -> None:
        """Ask it to end, and return at once."""
        self.podman.run("podman", "kill", "--signal=TERM", self.identifier)

    def stop(self, grace: int) -> int:
        """End it as a kubelet does: its stop signal, and after `grace` seconds SIGKILL."""
        self.podman.run("podman", "stop", f"--time={grace}", self.identifier)
        code: int = self.podman.inspect(self.identifier)["State"]["ExitCode"]
        return code

    def wait(self) -> int:
        """Wait until it has ended and return its exit code."""
        return int(self.podman.run("podman", "wait", self.identifier).out)

    def logs(self) -> str:
        """Everything that it has logged."""
        done = self.podman.run("podman", "logs", self.identifier)
        return done.out + done.err

    def remove(self) -> None:
        """End it at once and forget it."""
        what = ("pod", "rm", self.pod) if self.pod else ("rm", self.identifier)
        self.podman.run("podman", *what, "--force", "--time=0")
