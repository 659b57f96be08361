"""What every test of the project shares."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Fast where people wait, deep where machines do: HYPOTHESIS_PROFILE=deep. The
# quick one is for further Pythons, which meet what the first has met in full.
settings.register_profile("default", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=25)
settings.register_profile(
    "deep", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# Those need root and an image: nox -s container makes one, and says where.
collect_ignore = [] if "TRIO_ECHO_IMAGE_INPUTS" in os.environ else ["container"]
