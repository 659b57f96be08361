"""The public Python API lists and exports what it needs."""

from __future__ import annotations

from importlib.metadata import version

import pytest

import trio_echo


def test_every_public_name_is_listed_and_there() -> None:
    """Completion in a shell finds what the documentation names."""
    for name in trio_echo.__all__:
        assert name in dir(trio_echo)
        assert getattr(trio_echo, name) is not None


def test_the_version_is_the_installed_one() -> None:
    """As ``trio-echo --version`` prints it."""
    assert trio_echo.__version__ == version("trio-echo")


def test_an_unknown_name_is_an_attribute_error() -> None:
    """With the words of every other module."""
    with pytest.raises(AttributeError, match="module 'trio_echo' has no attribute 'sevre'"):
        trio_echo.sevre  # noqa: B018 - the lookup itself is the test
