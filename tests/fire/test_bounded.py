"""No kind of client uses the memory up: in a real cgroup of 256 MiB, as the manifests have it."""

from __future__ import annotations

import pytest
from fire.bounded import SCENARIOS, Cgroup, run


@pytest.fixture(autouse=True)
def cgroups() -> None:
    """Skip where no memory cgroup can be made."""
    try:
        Cgroup.make().folder.rmdir()
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")


@pytest.mark.parametrize(("name", "kinds"), SCENARIOS.items(), ids=SCENARIOS)
def test_the_server_lives_and_polite_clients_are_served(name: str, kinds: list[str]) -> None:
    """And the memory comes back when they leave."""
    assert run(name, kinds)
