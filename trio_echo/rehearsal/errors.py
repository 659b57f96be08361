"""What can go wrong before there is a verdict, apart from the route itself."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from trio_echo.errors import TrioEchoError
from trio_echo.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ManifestError", "RehearsalError", "first_leaf", "one_error"]


class ManifestError(TrioEchoError):
    """A manifest says something that is wrong, or that cannot be carried out.

    The message names file, document and field, and what would be right. What
    it quotes from a file is escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__(visible(message))


class RehearsalError(TrioEchoError):
    """The rehearsal could not be run: no Envoy, a port in use, a crash."""


@contextmanager
def one_error() -> Iterator[None]:
    """Raise the project's own error by itself where a group holds nothing else.

    Nurseries wrap what their tasks raise. When one task failed for a known
    reason and the others were cancelled for it, that reason is the message.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        leaves = list(_leaves(group))
        known = [leaf for leaf in leaves if isinstance(leaf, TrioEchoError)]
        if len(known) != len(leaves):
            raise
        raise known[0] from group


def first_leaf(error: BaseException) -> BaseException:
    """The first exception in a group that is no group, or `error` itself."""
    return next(_leaves(error))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions in nested groups that are no groups themselves."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
