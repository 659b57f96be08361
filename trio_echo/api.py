"""A rehearsal from Python: the conductor, and who reads the arguments of containers."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from trio_echo.cli.rehearse import parse_container
from trio_echo.prober.config import ProbeConfig
from trio_echo.rehearsal.dataplane import PLANES
from trio_echo.rehearsal.route import DRAIN
from trio_echo.rehearsal.run import read_plan, run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trio_echo.rehearsal.run import Events, Result

__all__ = ["rehearse"]


async def rehearse(
    *manifests: str | Path,
    plane: str | None = None,
    shift: Sequence[Sequence[int]] = (),
    drain: int = DRAIN,
    events: Events | None = None,
    **settings: Any,
) -> Result:
    """Run what manifests describe on this machine, with a real Envoy, and judge it.

    Backends, Envoy and the probe run while this does; nothing is left of them
    afterwards, whatever ends it, a cancellation too.

    Args:
        manifests: files and folders, kustomizations too.
        plane: the data plane that runs Gateways of Gateway API, ``istio`` or
            ``envoy-gateway``; None to go by their class.
        shift: walk the only route through these sets of weights.
        drain: seconds after which connections of a replaced listener are cut.
        events: is told what happens.
        settings: of each probe, as `ProbeConfig` has them, such as ``margin``.

    Raises:
        ManifestError: a manifest is wrong, or leads nowhere.
        RehearsalError: Envoy is missing, or something ended by itself.
        ConfigError: a setting cannot work.
    """
    chosen = None if plane is None else PLANES[plane]
    plan = read_plan([str(each) for each in manifests], parse_container, plane=chosen)
    configure = partial(ProbeConfig, **settings)
    return await run(replace(plan, drain=drain), configure, sets=shift, events=events)
