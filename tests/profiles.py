"""How many examples the properties take: by ``HYPOTHESIS_PROFILE``, never by a fixed number."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

__all__ = ["examples"]

# Fast where people wait, deep where machines do. The quick one is for further
# Pythons, which meet what the first has met in full.
settings.register_profile("default", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=25)
settings.register_profile(
    "deep", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def examples(share: float) -> settings:
    """Take a share of the profile's examples: for a property whose examples take long.

    Args:
        share: of the number that the profile names; at least two are taken.
    """
    return settings(
        max_examples=max(2, round(share * settings().max_examples)),
        suppress_health_check=[HealthCheck.too_slow],
    )
