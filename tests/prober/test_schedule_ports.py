"""The warning before local ports run out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trio_echo.prober.schedule import PortWatch

if TYPE_CHECKING:
    from pathlib import Path

LOOPBACK = (2, ("127.0.0.1", 9000))
ELSEWHERE = (10, ("2001:db8::1", 9000, 0, 0))


def settings(folder: Path, ports: str = "32768 33767\n", reuse: str = "2\n") -> Path:
    """A thousand ports, as Linux shows it."""
    (folder / "ip_local_port_range").write_text(ports, encoding="ascii")
    (folder / "tcp_tw_reuse").write_text(reuse, encoding="ascii")
    return folder


def warned(watch: PortWatch, rate: float, count: int) -> list[tuple[int, str]]:
    """When `count` connections at `rate` a second draw which warnings."""
    return [
        (number, warning) for number in range(count) for warning in watch.launched(number / rate)
    ]


def test_warns_once_before_they_run_out(tmp_path: Path) -> None:
    """At 100 a second a thousand ports last ten seconds; the warning comes before."""
    [(number, warning)] = warned(PortWatch(ELSEWHERE, 1, settings(tmp_path)), 100, 3000)
    assert 750 < number < 1000
    assert "of 1000 local ports" in warning
    assert "--source-address" in warning


def test_slow_enough_is_fine(tmp_path: Path) -> None:
    """Ten a second hold six hundred ports at most."""
    assert not warned(PortWatch(ELSEWHERE, 1, settings(tmp_path)), 10, 3000)


def test_more_addresses_have_more_ports(tmp_path: Path) -> None:
    """Each source address has ports of its own."""
    assert not warned(PortWatch(ELSEWHERE, 8, settings(tmp_path)), 100, 3000)


@pytest.mark.parametrize(("reuse", "warns"), [("0\n", True), ("1\n", False), ("2\n", False)])
def test_loopback_reuses_them_quickly(tmp_path: Path, reuse: str, warns: bool) -> None:
    """Linux takes a port again after a second where it may, by default on loopback."""
    watch = PortWatch(LOOPBACK, 1, settings(tmp_path, reuse=reuse))
    assert bool(warned(watch, 100, 3000)) is warns


@pytest.mark.parametrize("ports", ["", "garbage\n", "1\n"])
def test_nothing_known_nothing_said(tmp_path: Path, ports: str) -> None:
    """Elsewhere than on Linux there is nothing to read."""
    assert not warned(PortWatch(ELSEWHERE, 1, settings(tmp_path, ports=ports)), 100, 3000)
    assert not warned(PortWatch(ELSEWHERE, 1, tmp_path / "missing"), 100, 3000)
