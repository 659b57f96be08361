"""A pytest plugin: backends that name themselves, and the judge, as fixtures.

pytest loads it in each run where the package is installed. So it imports nothing that
pytest has not imported already; the rest comes with the first fixture that is used.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trio_echo import Report
    from trio_echo.testing import EchoBackend, StartBackend

__all__ = ["echo_backend", "split_probe"]

T = TypeVar("T")


@pytest.fixture
def echo_backend() -> Iterator[StartBackend]:
    """Start backends: ``echo_backend("one").address`` is where one that says "one" listens."""
    from trio_echo import testing  # noqa: PLC0415 - trio, not before it is needed

    with ExitStack() as stack:

        def start(prefix: str, *, port: int = 0, **settings: object) -> EchoBackend:
            __tracebackhide__ = True
            begin = partial(testing.echo_backend, prefix, port=port, **settings)
            return _in_one_line(lambda: stack.enter_context(begin()))

        yield start


@pytest.fixture
def split_probe() -> Callable[..., Report]:
    """Judge a split: ``split_probe(ADDRESS, expect={"one": 80, "two": 20}).verdict``."""
    from trio_echo import testing  # noqa: PLC0415 - trio, not before it is needed

    def judge(target: str, **settings: object) -> Report:
        __tracebackhide__ = True
        return _in_one_line(partial(testing.split_probe, target, **settings))

    return judge


def _in_one_line(call: Callable[[], T]) -> T:
    """Call it; where a setting cannot work, pytest shows the test's own line and no more."""
    __tracebackhide__ = True
    from trio_echo.errors import ConfigError  # noqa: PLC0415 - not before it is needed

    try:
        return call()
    except ConfigError as error:
        raise error.with_traceback(None) from None
