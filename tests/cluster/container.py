"""Containers without images: a program of this machine in a pod's network and mounts.

There is one root for all of them: the machine's own folders, with writable layers
above /etc, /usr and /var that are gone with the mount namespace. A container gets
that root in a mount namespace of its own, with its volumes mounted into it.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.processes import run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RUN = Path("/run/cluster")
ROOT = RUN / "root"
LAYERED = ("etc", "usr", "var")


async def make_root(files: Mapping[str, Path]) -> None:
    """Build the root that containers see. Once for a mount namespace.

    ``files`` are those of images: where a container finds each, and where it is here.
    """
    ROOT.mkdir(parents=True)
    await run("mount", "-t", "tmpfs", "tmpfs", str(ROOT))
    for entry in sorted(Path("/").iterdir()):
        inside = ROOT / entry.name
        if entry.is_symlink():
            inside.symlink_to(entry.readlink())
        elif entry.is_dir():
            inside.mkdir()
            if entry.name in LAYERED:
                await _layer(entry, inside)
            elif entry.name != "run":
                await run("mount", "--rbind", str(entry), str(inside))
    # Mounts are made from outside, where an absolute link leads out of the root.
    (ROOT / "var/run").unlink(missing_ok=True)
    (ROOT / "var/run").symlink_to("../run")
    for path, source in files.items():
        inside = ROOT / path.lstrip("/")
        inside.parent.mkdir(parents=True, exist_ok=True)
        inside.touch()
        await run("mount", "--bind", str(source), str(inside))
    # No name server is here. Names stand in /etc/hosts, and all others fail at once.
    (ROOT / "etc/resolv.conf").unlink(missing_ok=True)
    (ROOT / "etc/resolv.conf").write_text("nameserver 127.0.0.1\noptions attempts:1 timeout:1\n")


async def _layer(below: Path, inside: Path) -> None:
    layers = RUN / "layers" / below.name
    (layers / "upper").mkdir(parents=True)
    (layers / "work").mkdir()
    await run(
        *("mount", "-t", "overlay", "overlay", "-o"),
        f"lowerdir={below},upperdir={layers}/upper,workdir={layers}/work",
        str(inside),
    )


@dataclass(frozen=True)
class Container:
    """What starts one container."""

    network: str
    command: Sequence[str]
    user: int
    mounts: Mapping[str, Path] = field(default_factory=dict)
    """Where in the container, and which file or folder of the node."""
    folder: str = "/"

    @property
    def start(self) -> list[str]:
        """The command that runs it, on the node."""
        # From the outside in, and each place made where it is missing: one volume can
        # lie inside another.
        mounts = []
        for path, source in sorted(self.mounts.items()):
            place = shlex.quote(f"{ROOT}{path}")
            make = f"mkdir -p {place}"
            if source.is_file():
                make = f"mkdir -p $(dirname {place}); touch {place}"
            mounts += [make, f"mount --bind {shlex.quote(str(source))} {place}"]
        # Images give their user the right to read the program. Here it may lie where
        # only root may read, in a home folder for instance.
        who = (
            f"setpriv --reuid={self.user} --regid={self.user} --clear-groups "
            "--inh-caps=+dac_read_search --ambient-caps=+dac_read_search"
            if self.user
            else ""
        )
        program = f"exec chroot {ROOT} {who} {shlex.join(self.command)}"
        return [
            *("nsenter", f"--net=/run/netns/{self.network}"),
            *("unshare", "--mount", "sh", "-c", "\n".join(["set -e", *mounts, program])),
        ]
