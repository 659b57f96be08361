"""Manifests that change on disk, and the route that follows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import trio

from trio_echo.errors import TrioEchoError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from trio_echo.rehearsal.route import Route
    from trio_echo.rehearsal.stage import Stage

__all__ = ["Read", "follow_manifests"]

_LOOK = 0.3
"""Seconds between two looks at the files: soon enough for someone who saves and
switches to another window, and cheap."""

_Fingerprint: TypeAlias = "dict[Path, tuple[int, int, int] | None]"

Read: TypeAlias = "Callable[[], tuple[Route, Iterable[Path]]]"
"""Reads the manifests again: the route, and the files that it was read from."""


async def follow_manifests(
    stage: Stage,
    read: Read,
    said: tuple[Route, Iterable[Path]],
    *,
    shifted: Callable[[], object],
    refused: Callable[[TrioEchoError], object],
) -> None:
    """Put every change of the manifests on stage, until cancelled.

    Args:
        stage: what is up.
        read: reads the manifests again.
        said: what that gave before; the files may have changed since. What is
            up may differ, after a walk through other weights, and stays until
            the manifests say another thing.
        shifted: called when the new route is up.
        refused: called with the reason where the new manifests, or Envoy, do
            not allow it; the last good route stays.
    """
    route, files = said
    watched = set(files)
    seen: _Fingerprint | None = None

    async def take_in() -> None:
        nonlocal route
        found, read_from = await trio.to_thread.run_sync(read)
        # Files that are new here are read once more in the next turn: an edit
        # since they were read would be missed otherwise.
        watched.update(read_from)
        if found != route:
            await stage.change(found)
            route = found
            shifted()

    while True:
        now = await trio.to_thread.run_sync(_fingerprint, watched)
        if now != seen:
            seen = now
            try:
                await take_in()
            except TrioEchoError as error:
                refused(error)
        await trio.sleep(_LOOK)


def _fingerprint(files: set[Path]) -> _Fingerprint:
    """What tells whether a file or folder has changed; None for one that is gone."""
    found: _Fingerprint = {}
    for path in files:
        try:
            status = path.stat()
        except OSError:
            found[path] = None
        else:
            found[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
    return found
