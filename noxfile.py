"""The project's checks, one session a claim: ``nox`` runs them all, ``nox -l`` lists them."""

from __future__ import annotations

import shutil
import subprocess

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_external_run = True
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["tests", "lint", "types", "layers"]

PROJECT = nox.project.load_toml("pyproject.toml")


def runs(version: str) -> bool:
    """Whether this Python is here and starts: a version manager's shim may not."""
    command = shutil.which(f"python{version}")
    if command is None:
        return False
    tried = subprocess.run([command, "-c", ""], capture_output=True, check=False)  # noqa: S603 - a Python from PATH
    return tried.returncode == 0


SUPPORTED = nox.project.python_versions(PROJECT)
FOUND = [version for version in SUPPORTED if runs(version)]


def install(session: nox.Session, *groups: str, extras: str = "[rehearse]") -> None:
    """Install the built wheel, never the source tree, and dependency groups."""
    wanted = nox.project.dependency_groups(PROJECT, *groups)
    session.install(f".{extras}", *wanted)


@nox.session(python=FOUND or None)
def tests(session: nox.Session) -> None:
    """The package does what the tests say, on every supported Python found here."""
    install(session, "test")
    arguments = session.posargs or ["--numprocesses=2"]
    if session.posargs or session.python not in FOUND[:1]:
        session.run("pytest", *arguments)
        return
    # Coverage once, on the oldest Python: tracing slows the suite, and a second
    # report would say the same.
    session.run("pytest", "--cov", "--cov-report=term-missing", "--cov-fail-under=100", *arguments)


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
def bench(session: nox.Session) -> None:
    """How the server compares with its peers: figures, no check (-- --quick, --servers, ...)."""
    install(session, "bench", extras="")
    session.run("python", "-m", "benchmarks", *session.posargs, env={"PYTHONPATH": "tests"})


def install_only(session: nox.Session, *groups: str) -> None:
    """Install dependency groups without the package."""
    session.install(*nox.project.dependency_groups(PROJECT, *groups))
