"""The programs of a cluster: found where they are already, else built from their Go modules."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trio_echo.rehearsal.process import find_envoy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KUBERNETES = "v1.37.2"
ISTIO = "v0.0.0-20260827124520-eed52ebb66ad"
ISTIO_NAME = "1.32-dev"
ENVOY_GATEWAY = "v1.9.1"
GATEWAY_API = "v1.6.1"
ARGO_ROLLOUTS = "v1.10.2"
FLAGGER = "v1.44.0"

_KUBERNETES_FLAGS = " ".join(
    f"-X k8s.io/{package}/version.{name}={value}"
    for package in ("component-base", "client-go/pkg")
    for name, value in (("gitVersion", KUBERNETES), ("gitMajor", "1"), ("gitMinor", "37"))
)
_ISTIO_FLAGS = f"-X istio.io/istio/pkg/version.buildVersion={ISTIO_NAME}"


@dataclass(frozen=True)
class Module:
    """A Go module, and what of it is wanted.

    Attributes:
        path: The module.
        version: Its pinned version.
        programs: Each program's name and its package below the module.
        minutes: About how long the programs take on two idle cores, the modules that stand
            before it in the list built already.
        flags: For the linker: which version the programs say they are.
        toolchain: The Go that it asks for, where that is newer than the usual one.
        staging: A version for each module that its own go.mod replaces by a folder.
        files: Files that are kept beside the programs: each name, and a pattern of its parts.
    """

    path: str
    version: str
    programs: Mapping[str, str]
    minutes: float
    flags: str = ""
    toolchain: str = ""
    staging: str = ""
    files: Mapping[str, str] | None = None


MODULES = (
    Module("go.etcd.io/etcd/server/v3", "v3.7.3", {"etcd": ""}, 1.2),
    Module(
        "k8s.io/kubernetes",
        KUBERNETES,
        {
            "kube-apiserver": "/cmd/kube-apiserver",
            "kube-controller-manager": "/cmd/kube-controller-manager",
        },
        10,
        _KUBERNETES_FLAGS,
        staging="v0.37.2",
    ),
    Module(
        "istio.io/istio",
        ISTIO,
        {
            "pilot-discovery": "/pilot/cmd/pilot-discovery",
            "pilot-agent": "/pilot/cmd/pilot-agent",
            "istioctl": "/istioctl/cmd/istioctl",
        },
        9,
        _ISTIO_FLAGS,
        files={"envoy_bootstrap.json": "tools/packaging/common/envoy_bootstrap.json"},
    ),
    Module(
        "github.com/envoyproxy/gateway",
        ENVOY_GATEWAY,
        {"envoy-gateway": "/cmd/envoy-gateway"},
        9,
        files={
            "envoy-gateway-crds.yaml": "charts/gateway-crds-helm/templates/generated/*.yaml",
        },
    ),
    Module(
        "sigs.k8s.io/gateway-api",
        GATEWAY_API,
        {},
        0,
        files={"gateway-api.yaml": "config/crd/standard/*.yaml"},
    ),
    Module(
        "github.com/argoproj/argo-rollouts",
        ARGO_ROLLOUTS,
        {"rollouts-controller": "/cmd/rollouts-controller"},
        9,
        f"-X github.com/argoproj/argo-rollouts/utils/version.version={ARGO_ROLLOUTS}",
        toolchain="go1.26.10",
        files={"argo-rollouts.yaml": "manifests/install.yaml"},
    ),
    Module(
        "github.com/fluxcd/flagger",
        FLAGGER,
        {"flagger": "/cmd/flagger"},
        2,
        files={
            "flagger-crds.yaml": "artifacts/flagger/crd.yaml",
            "flagger-account.yaml": "artifacts/flagger/account.yaml",
        },
    ),
)


class CannotBuildError(Exception):
    """A program is missing, and could not be built."""


def gather(cache: Path, given: Mapping[str, Path]) -> dict[str, Path]:
    """Where each program and file of a cluster is; what is missing is built into the cache.

    Looked for in this order: what is given, the cache, KUBEBUILDER_ASSETS, PATH. What is
    found is used as it is, in whatever version; the records say which that was.

    Raises:
        CannotBuildError: Go is missing, or a build failed.
    """
    found = dict(given)
    missing: list[tuple[Module, list[str]]] = []
    for module in MODULES:
        absent = []
        for name in (*module.programs, *(module.files or {})):
            place = _find(name, cache / "bin")
            if place is None:
                absent.append(name)
            else:
                found[name] = place
        if absent:
            missing.append((module, absent))
    if missing:
        _announce(missing)
        for module, absent in missing:
            for name in absent:
                found[name] = _make(module, name, cache)
    return found


def _find(name: str, built: Path) -> Path | None:
    folders = [str(built), os.environ.get("KUBEBUILDER_ASSETS", ""), os.environ.get("PATH", "")]
    for folder in os.pathsep.join(filter(None, folders)).split(os.pathsep):
        place = Path(folder) / name
        if place.is_file() and (os.access(place, os.X_OK) or place.suffix):
            return place
    return None


def _announce(missing: Sequence[tuple[Module, Sequence[str]]]) -> None:
    minutes = sum(
        module.minutes for module, absent in missing if set(absent) & set(module.programs)
    )
    print("To be built from Go modules, once, and kept:")
    for module, absent in missing:
        print(f"  {module.path} {module.version}: {', '.join(absent)}")
    print(f"On two idle cores that takes about {round(minutes)} minutes.", flush=True)
    if shutil.which("go") is None:
        raise CannotBuildError("go is not on the PATH: install Go 1.26 or newer, or the programs")


def _make(module: Module, name: str, cache: Path) -> Path:
    """Build a program, or copy a file out of its module."""
    target = cache / "bin" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    folder = _prepare(module, cache)
    if name in module.programs:
        package = module.path + module.programs[name]
        scratch = target.with_name(f".{name}")
        flags = f"-s -w {module.flags}".strip()
        _go(module, cache, "build", "-trimpath", "-ldflags", flags, "-o", str(scratch), package)
        scratch.rename(target)
    else:
        pattern = (module.files or {})[name]
        texts = [path.read_text(encoding="utf-8") for path in sorted(folder.glob(pattern))]
        if not texts:
            raise CannotBuildError(f"{module.path} {module.version} has no {pattern}")
        # Helm's conditions around whole files.
        plain = "---\n".join(re.sub(r"^\{\{.*\n", "", text, flags=re.MULTILINE) for text in texts)
        target.write_text(plain if len(texts) > 1 else texts[0], encoding="utf-8")
    print(f"  {name}: {(time.monotonic() - began) / 60:.1f} min", flush=True)
    return target


def _prepare(module: Module, cache: Path) -> Path:
    """A module of our own that requires the one to build. Gives the folder of its source."""
    folder = cache / "modules" / module.path.replace("/", "_")
    folder.mkdir(parents=True, exist_ok=True)
    wanted = f"{module.path}@{module.version}"
    if not (folder / "go.mod").exists():
        version = module.toolchain.removeprefix("go") or "1.26.0"
        (folder / "go.mod").write_text(f"module cluster\n\ngo {version}\n", encoding="utf-8")
        about = json.loads(_go(module, cache, "mod", "download", "-json", wanted))
        replaced = Path(about["GoMod"]).read_text(encoding="utf-8")
        for old, new in re.findall(r"^\s*(?:replace )?(\S+) => (.+)$", replaced, re.MULTILINE):
            # A folder beside the module is not here; its published version is.
            there = f"{old}@{module.staging}" if new.startswith("./staging") else new
            if not there.startswith("."):
                _go(module, cache, "mod", "edit", "-replace", f"{old}={'@'.join(there.split())}")
        _go(module, cache, "get", wanted)
    about = json.loads(_go(module, cache, "mod", "download", "-json", wanted))
    return Path(about["Dir"])


def _go(module: Module, cache: Path, *arguments: str) -> str:
    """What a go command prints. It runs at the lowest priority, two compilers at a time."""
    words = ["go", *arguments]
    if arguments[0] == "build":
        words[2:2] = ["-p", "2"]
    for wrapper in (["ionice", "-c", "3"], ["nice", "-n", "19"]):
        if shutil.which(wrapper[0]):
            words = [*wrapper, *words]
    done = subprocess.run(
        words,
        cwd=cache / "modules" / module.path.replace("/", "_"),
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "CGO_ENABLED": "0",
            "GOFLAGS": "-mod=mod -modcacherw",
            "GOTOOLCHAIN": module.toolchain or "local",
            "GOMODCACHE": str(cache / "go/mod"),
            "GOCACHE": str(cache / "go/build"),
        },
    )
    if done.returncode != 0:
        said = done.stderr.strip()[-2000:]
        raise CannotBuildError(f"{' '.join(words)}: exit code {done.returncode}\n{said}")
    return done.stdout


def installed() -> dict[str, Path]:
    """The programs that this Python's environment brings: trio-echo, kubectl and Envoy."""
    scripts = Path(sys.executable).parent
    return {
        "trio-echo": scripts / "trio-echo",
        "kubectl": scripts / "kubectl",
        "envoy": Path(find_envoy()),
    }
