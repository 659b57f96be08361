"""A rehearsal from Python: its result is the verdict of all its reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from manifest_texts import GATEWAY_API, ISTIO

from trio_echo import Events, ManifestError, RehearsalError, Verdict, rehearse
from trio_echo.prober.split import worst

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trio_echo.rehearsal.route import Listener


class Heard(Events):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.ports: list[int] = []
        self.shares: list[Mapping[str, float]] = []

    def up(self, listener: Listener, port: int) -> None:
        """A listener is up."""
        super().up(listener, port)
        self.ports.append(listener.port)

    def shifting(self, shares: Mapping[str, float]) -> None:
        """A step begins."""
        super().shifting(shares)
        self.shares.append(shares)


async def test_right_route_passes(tmp_path: Path) -> None:
    """Every route of the manifests, by the data plane that is asked for."""
    manifest = tmp_path / "route.yaml"
    manifest.write_text(GATEWAY_API)
    heard = Heard()
    result = await rehearse(manifest, plane="envoy-gateway", events=heard, margin=0.2, alpha=0.0001)
    assert result.verdict is Verdict.PASS, result
    assert len(result.reports) == 2
    assert heard.ports == [8080, 8090]
    assert str(result).count("PASS: ") == 2


async def test_walk_is_part_of_the_result(tmp_path: Path) -> None:
    """A step that does not pass makes it fail, and what was warned of is in its words."""
    manifest = tmp_path / "route.yaml"
    filtered = "apiVersion: x/v1\nkind: EnvoyFilter\nmetadata: {name: f}\n"
    manifest.write_text(f"{ISTIO}---\n{filtered}")
    heard = Heard()
    sets = [(80, 20), (0, 100)]
    result = await rehearse(
        str(manifest), shift=sets, drain=1, events=heard, margin=0.2, alpha=0.0001
    )
    assert str(result.verdict) == "PASS", result
    assert result.walk is not None
    assert heard.shares == [{"one": 80, "two": 20}, {"one": 0, "two": 100}]
    assert "open connections: " in str(result)
    assert "EnvoyFilter f is ignored here" in str(result)
    result.walk._clients.lost += 1  # noqa: SLF001 - as if one had been
    assert str(result.verdict) == "FAIL"


async def test_what_is_wrong_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest that leads nowhere, and an Envoy that is not there."""
    manifest = tmp_path / "route.yaml"
    manifest.write_text(ISTIO.replace("weight: 80", "weight: -1"))
    with pytest.raises(ManifestError) as caught:
        await rehearse(manifest)
    assert (caught.value.origin, caught.value.line) == (str(manifest), 115)
    manifest.write_text(ISTIO)
    monkeypatch.setattr("trio_echo.rehearsal.run.find_envoy", lambda: "/missing/envoy")
    with pytest.raises(RehearsalError, match="Envoy does not start"):
        await rehearse(manifest)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([Verdict.PASS, Verdict.PASS], Verdict.PASS),
        ([Verdict.PASS, None], None),
        ([Verdict.INCONCLUSIVE, Verdict.PASS, None], Verdict.INCONCLUSIVE),
        ([Verdict.UNMEASURED, Verdict.INCONCLUSIVE], Verdict.UNMEASURED),
        ([Verdict.UNMEASURED, Verdict.FAIL], Verdict.FAIL),
    ],
)
def test_worst_verdict_counts(verdicts: list[Verdict | None], expected: Verdict | None) -> None:
    """One route that fails is a rehearsal that fails."""
    assert worst(verdicts) is expected
