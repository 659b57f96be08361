"""What every test of the project shares."""

from __future__ import annotations

import os

import profiles  # noqa: F401 - loads the profile, before any test module is imported

# In a job of GitHub Actions each command would tell it what it does.
for variable in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"):
    os.environ.pop(variable, None)

# Those need root; nox -s container and nox -s fire make what else they need, and say so.
collect_ignore = [
    folder
    for folder, variable in (("container", "TRIO_ECHO_IMAGE_INPUTS"), ("fire", "TRIO_ECHO_FIRE"))
    if variable not in os.environ
]
