"""The project's errors: one small tree, each message one clear line."""

from __future__ import annotations

__all__ = ["ConfigError", "ManifestError", "NoRouteError", "RehearsalError", "TrioEchoError"]


class TrioEchoError(Exception):
    """Base of every error that trio-echo raises on purpose.

    ``str(error)`` is one line that says what is wrong and how to mend it.
    """


class ConfigError(TrioEchoError, ValueError):
    """A setting has a value that cannot work.

    Attributes:
        field: the name of the setting as a Python field, such as ``max_line``;
            the command line shows it as its option, ``--max-line``.
        reason: what is wrong with the value and what would be right.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class ManifestError(TrioEchoError):
    """A manifest says something that is wrong, or that cannot be carried out.

    The message names file, document and field, and what would be right. What
    it quotes from a file is as it came.

    Attributes:
        origin: the file, as the user named it; empty where no one file is wrong.
        line: the line in it; None where no line is known.
    """

    def __init__(self, message: str, *, origin: str = "", line: int | None = None) -> None:
        super().__init__(message)
        self.origin = origin
        self.line = line


class NoRouteError(ManifestError):
    """Nothing is wrong in the manifests, and no route of them leads anywhere."""


class RehearsalError(TrioEchoError):
    """The rehearsal could not be run: no Envoy, a port in use, a crash."""
