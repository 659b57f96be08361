"""The project's checks, one session a claim: ``nox`` runs them all, ``nox -l`` lists them."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_external_run = True
nox.options.reuse_existing_virtualenvs = True

PROJECT = nox.project.load_toml("pyproject.toml")


# Where version managers keep what they have installed: pyenv, asdf, mise and uv.
MANAGED = (
    ".pyenv/versions/{}*/bin",
    ".asdf/installs/python/{}*/bin",
    ".local/share/mise/installs/python/{}*/bin",
    ".local/share/uv/python/cpython-{}*/bin",
)


def found(version: str) -> bool:
    """Whether this Python is here and starts, on the PATH or at a version manager.

    A manager's shim starts only the versions that are active. What it hides is put
    in front of the shims, where nox looks for it.
    """
    name = f"python{version}"
    if starts(shutil.which(name)):
        return True
    for pattern in MANAGED:
        # Releases by number: 3.13.9 is older than 3.13.10.
        for folder in sorted(Path.home().glob(pattern.format(version + ".")), key=numbers):
            if starts(str(folder / name)):
                os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
                return True
    return False


def numbers(folder: Path) -> list[int]:
    """The numbers in a path, the newest release first in a sorted list."""
    return [-int(number) for number in re.findall("[0-9]+", str(folder))]


def starts(command: str | None) -> bool:
    """Whether there is a Python behind a command."""
    if command is None or not Path(command).exists():
        return False
    tried = subprocess.run([command, "-c", ""], capture_output=True, check=False)  # noqa: S603 - a Python found here
    return tried.returncode == 0


ACTIONLINT = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"
CONSTRAINTS = "container/constraints.txt"
SUPPORTED = nox.project.python_versions(PROJECT)
FOUND = [version for version in SUPPORTED if found(version)]

# What fails on a Python between fails on the oldest or the newest as a rule, and all
# of them take more time than anybody waits: `nox -s tests` is for that.
ENDS = [f"tests-{version}" for version in dict.fromkeys((*FOUND[:1], *FOUND[-1:]))]
nox.options.sessions = [*(ENDS or ["tests"]), "lint", "types", "layers"]


def install(session: nox.Session, *groups: str, extras: str = "[rehearse]") -> None:
    """Install the built wheel, never the source tree, and dependency groups."""
    wanted = nox.project.dependency_groups(PROJECT, *groups)
    session.install(f".{extras}", *wanted)


@nox.session(python=FOUND or None)
def tests(session: nox.Session) -> None:
    """The package does what the tests say. By itself nox takes the oldest and newest Python."""
    install(session, "test")
    arguments = session.posargs or ["--numprocesses=2"]
    # Real sockets, real processes and a real Envoy on a machine that others use
    # too: one that stalls for seconds can fail a test that is right. What was run
    # again stands in the summary; what fails twice has failed.
    if "CI" in os.environ:
        arguments = ["--reruns=1", *arguments]
    if session.python not in FOUND[:1]:
        profile = os.environ.get("HYPOTHESIS_PROFILE", "quick")
        session.run("pytest", *arguments, env={"HYPOTHESIS_PROFILE": profile})
        return
    # Coverage once, on the oldest Python: tracing slows the suite, and a second
    # report would say the same.
    if not session.posargs:
        arguments += ["--cov", "--cov-report=term-missing", "--cov-fail-under=100"]
    session.run("pytest", *arguments)


@nox.session
def lint(session: nox.Session) -> None:
    """The code follows ruff's rules, all but those reasoned away, and its format."""
    install_only(session, "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """The package and its tests pass mypy's strict mode."""
    install(session, "types")
    session.run("mypy", "trio_echo", "tests", "noxfile.py")


@nox.session
def layers(session: nox.Session) -> None:
    """Imports go down the house only, and the pure parts know no I/O."""
    install(session, "layers")
    session.run("lint-imports")


@nox.session
def constraints(session: nox.Session) -> None:
    """Pin what the image holds anew: the newest release of everything."""
    install_only(session, "constraints")
    session.run(
        *("uv", "pip", "compile", "pyproject.toml", "--group=image", "--quiet", "--upgrade"),
        *("--universal", f"--python-version={SUPPORTED[0]}", "--generate-hashes"),
        *("--custom-compile-command=nox -s constraints", f"--output-file={CONSTRAINTS}"),
    )


@nox.session
def wheelhouse(session: nox.Session) -> None:
    """Gather in dist/wheelhouse what the image is built from (-- 3.12 for another Python)."""
    [python] = session.posargs or ["3.13"]
    fill_wheelhouse(session, Path("dist/wheelhouse"), python, "x86_64", "aarch64")


@nox.session
def container(session: nox.Session) -> None:
    """The image keeps its promises, alone and behind an Envoy. Needs root and Debian's tools."""
    install(session, "test", "container")
    session.run("hadolint", "container/Containerfile")
    inputs = session.cache_dir / "container"
    if not (inputs / "base.tar").exists():
        session.run("sh", "container/debian-base.sh", str(inputs), external=True)
    python = (inputs / "python").read_text(encoding="utf-8").strip()
    fill_wheelhouse(session, inputs / "wheels", python, platform.machine())
    # A network of its own: the build finds none, and no packet of the tests leaves it.
    session.run(
        *("unshare", "--net", "pytest", "tests/container", *session.posargs),
        external=True,
        env={"TRIO_ECHO_IMAGE_INPUTS": str(inputs)},
    )


@nox.session
def cluster(session: nox.Session) -> None:
    """Real control planes on this machine (-- --record writes the records). Needs root and Go."""
    install(session, "test")
    session.run(
        *("python", "-m", "cluster", f"--cache={session.cache_dir / 'cluster'}", *session.posargs),
        env={"PYTHONPATH": "tests"},
    )


@nox.session
def package(session: nox.Session) -> None:
    """In dist/package: the sdist, which has all of the clone, and its wheel, which runs."""
    install_only(session, "package")
    built, fresh = Path("dist/package"), Path(session.create_tmp())
    shutil.rmtree(built, ignore_errors=True)
    session.run("python", "-m", "build", f"--outdir={built}", silent=True)
    [wheel], [sdist] = built.glob("*.whl"), built.glob("*.tar.gz")
    session.run("check-wheel-contents", str(wheel))
    session.run("twine", "check", "--strict", str(wheel), str(sdist))
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    tracked = session.run("git", "ls-files", external=True, silent=True, log=False)
    if missing := set(str(tracked).split()) - held:
        session.error(f"the sdist lacks {', '.join(sorted(missing))}")
    session.run("python", "-m", "venv", "--clear", str(fresh))
    session.run(str(fresh / "bin/pip"), "install", "--quiet", str(wheel), external=True)
    session.run(str(fresh / "bin/trio-echo"), "--version", external=True)


@nox.session
def workflows(session: nox.Session) -> None:
    """The workflows are what GitHub understands; they run there and nowhere else."""
    install_only(session, "workflows")
    session.run("go", "install", ACTIONLINT, env={"GOBIN": session.bin, "GOTOOLCHAIN": "local"})
    session.run("actionlint")


def fill_wheelhouse(session: nox.Session, folder: Path, python: str, *machines: str) -> None:
    """Put the wheels of the package and of its pinned dependencies into a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    session.run("pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={folder}", ".")
    for machine in machines:
        systems = (f"{kind}_{machine}" for kind in ("manylinux2014", "manylinux_2_28"))
        session.run(
            *("pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"),
            *(f"--requirement={CONSTRAINTS}", f"--dest={folder}", f"--python-version={python}"),
            *(f"--platform={system}" for system in systems),
        )


@nox.session
def fire(session: nox.Session) -> None:
    """Servers that end under load, over long ways too, lose nobody. Needs root and HAProxy."""
    install(session, "test")
    arguments = session.posargs or ["--timeout=600"]
    if "CI" in os.environ:
        arguments = ["--reruns=1", *arguments]
    # A network of its own, so that its links and routes are nobody else's.
    session.run(
        *("unshare", "--net", "pytest", "tests/fire", *arguments),
        external=True,
        env={"TRIO_ECHO_FIRE": "1"},
    )


@nox.session
def soak(session: nox.Session) -> None:
    """Everything at once for five minutes gives no wrong byte (-- --minutes 60)."""
    install(session, "test", extras="")
    session.run("python", "-m", "fire.soak", *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session
def audit(session: nox.Session) -> None:
    """No dependency has a known fault, and the code has none that a scanner knows."""
    install(session, "audit")
    session.run("bandit", "--quiet", "--severity-level=medium", "--recursive", "trio_echo")
    audited = subprocess.run(  # noqa: S603 - from this session's own environment
        [Path(session.bin, "pip-audit"), "--requirement", CONSTRAINTS, "--disable-pip"],
        capture_output=True,
        check=False,
        text=True,
    )
    unreached = "could not be audited" in audited.stdout or "ServiceError" in audited.stderr
    if unreached or "ConnectionError" in audited.stderr:
        session.skip("pip-audit does not reach its data here: no dependency was audited")
    if audited.returncode:
        session.error(audited.stdout + audited.stderr)


@nox.session
def docs(session: nox.Session) -> None:
    """Write what the pages take from the code: options, state tables, charts."""
    install(session, "test")
    session.run("python", "-m", "documenting", env={"PYTHONPATH": "tests"})


@nox.session
def pictures(session: nox.Session) -> None:
    """Draw the pictures of docs/ anew, from real runs. Needs root, or user namespaces."""
    install(session, "test")
    session.run("python", "-m", "documenting.pictures", env={"PYTHONPATH": "tests"})


@nox.session
def bench(session: nox.Session) -> None:
    """How the server compares with its peers: figures, no check (-- --quick, --servers, ...)."""
    install(session, "bench", extras="")
    session.run("python", "-m", "benchmarks", *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session
def trial(session: nox.Session) -> None:
    """How often the probe is wrong, beside what it promises and what others do (-- --runs 100)."""
    install(session, extras="")
    session.run("python", "-m", "trial", *session.posargs, env={"PYTHONPATH": "tests"})


def install_only(session: nox.Session, *groups: str) -> None:
    """Install dependency groups without the package."""
    session.install(*nox.project.dependency_groups(PROJECT, *groups))
