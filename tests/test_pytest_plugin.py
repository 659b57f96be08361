"""The pytest plugin, in runs of pytest as users have them."""

from __future__ import annotations

import re
from importlib.metadata import entry_points

import pytest

pytest_plugins = ["pytester"]

TESTS = """
import asyncio
import socket
import threading

import pytest
import trio

import trio_echo

ADDRESSES = []


def answer(address):
    with socket.create_connection(address.split(":"), timeout=5) as client:
        client.sendall(b"hello\\n")
        return client.makefile("rb").readline()


def test_backends_answer_while_the_test_blocks(echo_backend):
    one, two = echo_backend("one"), echo_backend("two", max_line=5)
    ADDRESSES.extend([one.address, two.address])
    assert answer(one.address) == b"one hello\\n"
    assert answer(two.address) == b"two hello\\n"
    assert (one.prefix, one.address) == ("one", f"127.0.0.1:{one.port}")


def test_they_end_with_the_test():
    assert not [each for each in threading.enumerate() if each.name.startswith("trio-echo")]
    for address in ADDRESSES:
        with pytest.raises(ConnectionRefusedError):
            answer(address)


def test_a_port_of_ones_own(echo_backend):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(trio_echo.ConfigError, match=f"{port} is already in use"):
            echo_backend("one", port=port)
    assert echo_backend("one", port=port).port == port


def test_a_split(echo_backend, split_probe):
    report = split_probe(echo_backend("one").address, expect={"one": 1})
    assert report.verdict == "PASS"


def test_a_failure_in_words(echo_backend, split_probe):
    target = echo_backend("one").address
    assert split_probe(target, expect={"one": 80, "two": 20}).verdict == "PASS"


async def test_beside_trio(echo_backend, split_probe):
    target = echo_backend("one").address
    report = await trio_echo.probe(trio_echo.ProbeConfig(target=target, expect={"one": 1}))
    assert report.verdict == "PASS"
    with pytest.raises(RuntimeError, match="await trio_echo.probe"):
        split_probe(target)


def test_beside_asyncio(echo_backend, split_probe):
    target = echo_backend("one").address

    async def both():
        with pytest.raises(RuntimeError, match="await asyncio.to_thread"):
            split_probe(target)
        return await asyncio.to_thread(split_probe, target, expect={"one": 1})

    assert asyncio.run(both()).verdict == "PASS"
"""

SILENT = """
import sys


def test_nothing_was_loaded():
    loaded = {name for name in sys.modules if name.startswith("trio_echo")}
    assert loaded == {"trio_echo", "trio_echo.pytest_plugin"}
    assert not {"trio", "asyncio", "concurrent.futures"} & set(sys.modules)
"""


def test_the_fixtures(pytester: pytest.Pytester) -> None:
    """From plain tests and beside event loops; a failure says the report in words."""
    [found] = entry_points(group="pytest11", name="trio_echo")
    assert found.value == "trio_echo.pytest_plugin"
    pytester.makeini("[pytest]\ntrio_mode = true\nfilterwarnings = error")
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(passed=6, failed=1)
    printed = result.stdout.str()
    assert "Captured stdout call" in printed
    assert re.search("^FAIL: 127.0.0.1:[0-9]+ does not split as expected", printed, re.MULTILINE)
    assert re.search("^ +two +20 % +0.0 %", printed, re.MULTILINE)


@pytest.mark.parametrize(
    ("test", "says"),
    [
        (
            "def test(split_probe): split_probe('localhost:1', expect={'one': -1})",
            "expect: 'one' must have a weight of 0 or more, got -1",
        ),
        (
            "def test(echo_backend): echo_backend('one', max_line=-1)",
            "max_line: must be more than 0, got -1",
        ),
    ],
)
def test_a_setting_that_cannot_work_is_one_line(
    pytester: pytest.Pytester, test: str, says: str
) -> None:
    """The line of the test, and what is wrong with it; none of our own frames."""
    pytester.makepyfile(test)
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(failed=1)
    printed = result.stdout.str()
    line = rf"^E +trio_echo\.errors\.ConfigError: {re.escape(says)}$"
    assert re.search(line, printed, re.MULTILINE)
    assert not re.search(r"^(\S+/)?trio_echo/\S+:\d+:", printed, re.MULTILINE)
    assert len(printed.splitlines()) < 25


def test_silence_where_nothing_of_it_is_used(pytester: pytest.Pytester) -> None:
    """No module of ours but two that do nothing, and not a word."""
    pytester.makepyfile(SILENT)
    others = [
        f"-pno:{each.name}" for each in entry_points(group="pytest11") if each.name != "trio_echo"
    ]
    result = pytester.runpytest_subprocess("-Werror", *others)
    result.assert_outcomes(passed=1)
    assert result.stderr.str() == ""
