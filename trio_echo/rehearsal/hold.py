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

Read: TypeAlias = "Callable[[], tuple[Route, Iterable[Path]]]"
"""Reads the manifests again: the route, and the files that it was read from."""


async def follow_manifests(
    stage: Stage,
    read: Read,
    files: Iterable[Path],
    *,
    shifted: Callable[[], object],
    refused: Callable[[TrioEchoError], object],
) -> None:
    """Put every change of the manifests on stage, until cancelled.

    Args:
        stage: what is up.
        read: reads the manifests again.
        files: what the route that is up was read from.
        shifted: called when the new route is up.
        refused: called with the reason where the new manifests, or Envoy, do
            not allow it; the last good route stays.
    """
    watched = set(files)
    seen = await trio.to_thread.run_sync(_fingerprint, watched)
    while True:
        await trio.sleep(_LOOK)
        now = await trio.to_thread.run_sync(_fingerprint, watched)
        if now == seen:
            continue
        seen = now
        try:
            route, found = await trio.to_thread.run_sync(read)
            new = set(found) - watched
            watched |= new
            seen |= await trio.to_thread.run_sync(_fingerprint, new)
            if route == stage.route:
                continue
            await stage.change(route)
        except TrioEchoError as error:
            refused(error)
        else:
            shifted()


def _fingerprint(files: set[Path]) -> dict[Path, tuple[int, int, int] | None]:
    """What tells whether a file or folder has changed; None for one that is gone."""
    found: dict[Path, tuple[int, int, int] | None] = {}
    for path in files:
        try:
            status = path.stat()
        except OSError:
            found[path] = None
        else:
            found[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
    return found
