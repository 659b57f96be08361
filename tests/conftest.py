"""What every test of the project shares."""

from __future__ import annotations

import os

import profiles  # noqa: F401 - loads the profile, before any test module is imported

# Those need root and an image: nox -s container makes one, and says where.
collect_ignore = [] if "TRIO_ECHO_IMAGE_INPUTS" in os.environ else ["container"]
