"""What may be asked of a gate: every field, every kind of wrong value, and no other target."""

from __future__ import annotations

import json
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hostile import hostile_text
from hypothesis import example, given
from hypothesis import strategies as st
from profiles import examples

from trio_echo.errors import ConfigError
from trio_echo.monitor import request
from trio_echo.monitor.request import (
    Allowed,
    Asked,
    NotAllowedError,
    Terms,
    read_flagger,
    read_json,
    read_words,
)
from trio_echo.prober.config import ProbeConfig, ProbeTLS

if TYPE_CHECKING:
    from collections.abc import Callable

TERMS = Terms(allow=[Allowed("*:*")])
LEAST = {"target": "echo:9000", "expect": {"one": 80, "two": 20}}


def asked(**more: Any) -> Asked:
    """Read a request in JSON that asks for more than the least."""
    return read_json(json.dumps(LEAST | more).encode(), TERMS)


def refused(body: object, terms: Terms = TERMS) -> ConfigError:
    """The error of a request in JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(ConfigError) as caught:
        read_json(raw, terms)
    assert "\n" not in str(caught.value)
    return caught.value


def test_the_least_that_can_be_asked_for() -> None:
    """A target and its weights; the rest is as on the command line, but for the bounds."""
    found = asked()
    assert found.settle == 5
    assert found.config.target == "echo:9000"
    assert found.config.expect == {"one": 80.0, "two": 20.0}
    assert found.config.connections == ProbeConfig(**LEAST).budget  # type: ignore[arg-type]  # they fit
    assert found.config.concurrency == 16


def test_every_field_of_the_probe_can_be_asked_for() -> None:
    """Also one that is new."""
    made = {each.name for each in fields(ProbeConfig) if each.init}
    assert made | {"sni", "settle"} == set(request._FIELDS)  # noqa: SLF001 - the one table of them


@pytest.mark.parametrize(
    ("name", "value", "word", "read"),
    [
        ("connections", 100, "100", 100),
        ("duration", 2.5, "2.5", 2.5),
        ("concurrency", 8, "8", 8),
        ("rate", 100, "100", 100.0),
        ("margin", 0.1, "1e-1", 0.1),
        ("tolerance", 0.02, "0.02", 0.02),
        ("alpha", 0.01, ".01", 0.01),
        ("timeout", 1, "1", 1.0),
        ("wait", 3.5, "3.5", 3.5),
        ("max_errors", 5, "5", 5),
        ("lines", 2, "2", 2),
        ("half_close", True, "true", True),
        ("payload_size", 100, "100", 100),
        ("source_addresses", ["127.0.0.1", "127.0.0.2"], "127.0.0.1,127.0.0.2", None),
        ("expect", "one=3,two=1", "one:3,two:1", {"one": 3.0, "two": 1.0}),
        ("identify", "name:(.*)", "name:(.*)", "name:(.*)"),
        ("identify_cert", "cn", "cn", "cn"),
        ("proxy_protocol", "v2", "v2", "v2"),
    ],
)
def test_a_field_as_json_and_as_a_word(name: str, value: object, word: str, read: object) -> None:
    """The same comes of both."""
    from_json = asked(**{name: value}).config
    words = {"target": "echo:9000", "expect": "one=80,two=20", name: word}
    assert read_words(words, TERMS).config == from_json
    assert getattr(from_json, name) == (value if read is None else read)


@pytest.mark.parametrize("name", ["connections", "margin", "max_errors", "tls", "sni"])
def test_null_is_as_if_nothing_were_said(name: str) -> None:
    """Where nothing is a value."""
    assert asked(**{name: None}) == asked()


def test_what_is_sent_is_written_as_on_the_command_line() -> None:
    """With the same escapes."""
    words = {"target": "a:1", "expect": "x=1", "send": r"INFO\r\n", "identify": "v:([0-9.]+)"}
    assert read_words(words, TERMS).config.send == b"INFO\r\n"
    assert asked(send=r"\x00", identify="(.)").config.send == b"\0"


def test_settle_and_tls() -> None:
    """Files come from the gate, a name from the request."""
    assert asked(settle=0).settle == 0
    assert read_words({"target": "a:1", "expect": "x=1"}, TERMS, settle=1.5).settle == 1.5
    assert asked(tls=False).config.tls is None
    assert asked(tls=True).config.tls == ProbeTLS()
    own = ProbeTLS(ca=Path("ca.pem"), cert=Path("cert.pem"))
    terms = Terms(allow=TERMS.allow, tls=own)
    body = json.dumps(LEAST | {"sni": "echo.test"}).encode()
    assert read_json(body, terms).config.tls == ProbeTLS(
        ca=Path("ca.pem"), cert=Path("cert.pem"), server_name="echo.test"
    )
    body = json.dumps(LEAST | {"identify_cert": "san"}).encode()
    assert read_json(body, terms).config.tls == own


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("connections", "12", 'must be a whole number, got "12"'),
        ("connections", 1.5, "must be a whole number, got 1.5"),
        ("connections", True, "must be a whole number, got true"),
        ("connections", 10**13, "must be a whole number, got 10000000000000"),
        ("connections", 0, "must be more than 0, got 0"),
        ("connections", 50_001, "must be at most 50000, --max-connections of the gate, got 50001"),
        ("concurrency", 257, "must be at most 256, --max-in-flight of the gate, got 257"),
        ("rate", 1e6, "must be at most 1000, --max-rate of the gate, got 1e+06"),
        ("timeout", 61, "must be at most 60, --max-seconds of the gate, got 61"),
        ("lines", 1001, "must be at most 1000 here, got 1001"),
        ("lines", 10**12, "must be at most 1000 here, got 1000000000000"),
        ("margin", "wide", 'must be a number, got "wide"'),
        ("margin", [0.1] * 50, "must be a number, got [0.1, 0.1, "),
        ("margin", 10**400, "must be a number, got 1000"),
        ("half_close", 1, "must be true or false, got 1"),
        ("target", 9000, "must be text, got 9000"),
        ("target", None, "must be text, got null"),
        ("target", "echo", "must be HOST:PORT, such as localhost:9000, got 'echo'"),
        ("expect", ["one"], "must be weights by name, such as one=80,two=20, got"),
        ("expect", {"one": "80"}, "must be weights by name, such as one=80,two=20, got"),
        ("expect", {}, "is missing; such as one=80,two=20"),
        ("expect", "one", "must be NAME=WEIGHT, such as one=80, got 'one'"),
        ("expect", {"one": -1}, ""),
        ("expect", dict.fromkeys(map(str, range(65)), 1), "must be at most 64 backends, got 65"),
        ("source_addresses", "127.0.0.1", "must be a list of texts"),
        ("source_addresses", ["x"], "must be an IP address, got 'x'"),
        ("settle", -1, "must not be negative, got -1"),
        ("settle", None, "must be a number, got null"),
        ("settle", 61, "settle + wait + duration must be at most 60 s, --max-seconds of the gate"),
        ("duration", 56, "settle + wait + duration must be at most 60 s, --max-seconds of the"),
        ("sni", "", "must not be empty"),
        ("identify", "(", ""),
        ("identify_cert", "ou", "must be one of cn, san, serial, sha256, got "),
        ("identify_cert", [], "must be one of cn, san, serial, sha256, got []"),
        ("send", "x", "needs --identify, which finds the name in the answer"),
        ("send", r"\q", "must have"),
        ("tls_ca", "/etc/passwd", "is no field of a request; start the gate with --tls-ca"),
        ("expct", {}, "is no field of a request; did you mean expect?"),
        ("\x1b[2J", 1, "is no field of a request; there are target, expect, connections"),
    ],
)
def test_a_wrong_value_is_named_with_a_remedy(name: str, value: object, says: str) -> None:
    """The field, what was found, what would be right; on one line."""
    error = refused(LEAST | {name: value})
    assert error.field == name.replace("\x1b", "\\x1b")
    assert error.reason.startswith(says)
    assert len(error.reason) < 300


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("connections", "1_000"),
        ("connections", ""),
        ("connections", "1" * 13),
        ("connections", "\N{ARABIC-INDIC DIGIT ONE}"),
        ("margin", "nan"),
        ("margin", "1e999"),
        ("margin", "0_1"),
        ("half_close", "yes"),
        ("expect", "one"),
        ("settle", "soon"),
        ("nothing", "1"),
    ],
)
def test_a_wrong_word_is_named(name: str, word: str) -> None:
    """By the same words."""
    with pytest.raises(ConfigError) as caught:
        read_words({"target": "a:1", "expect": "one=1"} | {name: word}, TERMS)
    assert caught.value.field == name


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"null",
        b"\xff\xfe",
        json.dumps(LEAST).encode("utf-16"),
        b'{"margin": NaN}',
        b'{"margin": -Infinity}',
        b'{"connections": ' + b"9" * 5000 + b"}",
        b"[" * 60_000,
        b'{"a":' * 10_000,
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    """As a whole."""
    error = refused(body)
    assert error.field == "body"
    assert error.reason.startswith("must be a JSON object, such as {")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            b'{"expect": {"stable": 90, "canary": }}',
            'expecting value at line 1, column 37, after \'ct": {"stable": 90, "canary": \'',
        ),
        (b"", "expecting value at line 1, column 1"),
        (
            b'{"a": 1,\n "b" 2}',
            "expecting ':' delimiter at line 2, column 6, after '{\"a\": 1,\\n \"b\" '",
        ),
    ],
)
def test_a_mistake_in_the_json_is_said_with_its_place(body: bytes, reason: str) -> None:
    """Such as an argument of a template that was left empty."""
    error = refused(body)
    assert (error.field, error.reason) == ("body", f"must be JSON; {reason}")


def test_a_field_that_is_there_twice_is_refused() -> None:
    """A reader that takes the last one would probe something else than one that takes the first."""
    error = refused(b'{"target": "a:1", "expect": {"one": 1, "one": 2}}')
    assert (error.field, error.reason) == ("one", "is there twice")


@pytest.mark.parametrize("field", ["sni", "identify_cert"])
def test_a_contradiction_about_tls(field: str) -> None:
    """What TLS alone has, and no TLS."""
    assert refused(LEAST | {"tls": False, field: "cn"}).field == field


@pytest.mark.parametrize("name", ["target", "expect"])
def test_what_must_be_there(name: str) -> None:
    """A gate judges; without weights there is nothing to judge."""
    error = refused({key: value for key, value in LEAST.items() if key != name})
    assert (error.field, error.reason[:20]) == (name, "is missing; such as ")


def test_the_terms_bound_what_is_not_asked_for() -> None:
    """Quietly: the verdict says how many connections would have done."""
    terms = Terms(allow=TERMS.allow, max_connections=100, max_in_flight=4)
    for more in ({}, {"duration": 5}):
        config = read_json(json.dumps(LEAST | more).encode(), terms).config
        assert (config.connections, config.concurrency) == (100, 4)
        assert config.second_look == 0
    for more, look in (({"connections": 70}, 30), ({"connections": 40, "second_look": 7}, 7)):
        assert read_json(json.dumps(LEAST | more).encode(), terms).config.second_look == look
    config = read_json(json.dumps(LEAST | {"rate": 5}).encode(), terms).config
    assert config.in_flight == 4


def test_what_a_connection_sends_is_bounded() -> None:
    """By lines and bytes, also where each alone is allowed."""
    assert asked(lines=16, payload_size=65_536).config.lines == 16
    error = refused(LEAST | {"lines": 17, "payload_size": 65_536})
    assert str(error) == "payload_size: x lines must be at most 1048576 bytes here, got 1114112"


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"allow": []}, "allow"),
        ({"max_connections": 0}, "max_connections"),
        ({"max_seconds": float("inf")}, "max_seconds"),
    ],
)
def test_terms_that_cannot_work(settings: dict[str, Any], field: str) -> None:
    """Found out when the gate starts."""
    with pytest.raises(ConfigError) as caught:
        Terms(**{"allow": TERMS.allow} | settings)
    assert caught.value.field == field


FLAGGER = {
    "name": "podinfo",
    "namespace": "test",
    "phase": "Progressing",
    "checksum": "85d557f47b",
    "metadata": {"target": "tcp-echo:9000", "expect": "one=80,two=20", "settle": "1"},
}


def test_a_webhook_of_flagger() -> None:
    """As its documentation has it; it may have more fields one day."""
    found = read_flagger(json.dumps(FLAGGER | {"more": [1]}).encode(), TERMS)
    assert found.config.expect == {"one": 80.0, "two": 20.0}
    assert found.settle == 1


@pytest.mark.parametrize("metadata", [None, [], "x", {"target": 1}])
def test_a_webhook_without_what_it_needs(metadata: object) -> None:
    """No metadata at all is what an empty one looks like."""
    with pytest.raises(ConfigError) as caught:
        read_flagger(json.dumps(FLAGGER | {"metadata": metadata}).encode(), TERMS)
    assert caught.value.field == "metadata"


def test_an_event_hook_is_refused() -> None:
    """Flagger adds words of its own to its metadata, which ask for nothing."""
    event = {"eventMessage": "New revision detected", "eventType": "Normal", "timestamp": "1"}
    with pytest.raises(ConfigError) as caught:
        read_flagger(json.dumps(FLAGGER | {"metadata": event}).encode(), TERMS)
    assert caught.value.field == "eventMessage"


@pytest.mark.parametrize(
    ("pattern", "targets"),
    [
        ("echo:9000", ["echo:9000", "ECHO:9000", "echo.:9000", "echo:09000"]),
        ("Echo.Test.:9000", ["echo.test:9000"]),
        ("*.svc.cluster.local:9000", ["a.svc.cluster.local:9000", "a.b.svc.CLUSTER.local.:9000"]),
        ("echo-*.test:*", ["echo-1.test:1", "echo-.test:65535"]),
        ("echo.*.test:1", ["echo.a.test:1"]),
        ("10.0.0.5:*", ["10.0.0.5:1", "10.0.0.5:65535"]),
        ("[::1]:80", ["[::1]:80", "[0:0:0:0:0:0:0:1]:80", "[0::0001]:80"]),
        ("[fe80::1%eth0]:80", ["[FE80::1%ETH0]:80"]),
        ("10.0.0.*:80", ["10.0.0.5:80", "10.0.0.255:80"]),
        ("*.0.1*.5:80", ["10.0.1.5:80", "10.0.12.5:80"]),
        ("10.0.*.x:80", ["10.0.0.x:80"]),
        ("*:80", ["echo:80", "a.b.c:80", "10.0.0.5:80", "[::1]:80", "[::ffff:10.0.0.5]:80"]),
    ],
)
def test_what_a_pattern_allows(pattern: str, targets: list[str]) -> None:
    """In every spelling of one and the same."""
    terms = Terms(allow=[Allowed("other:1"), Allowed(pattern)])
    for target in targets:
        assert read_words({"target": target, "expect": "x=1"}, terms).config.target == target


@pytest.mark.parametrize(
    ("pattern", "target"),
    [
        ("echo:9000", "echo:9001"),
        ("echo:9000", "echo.test:9000"),
        ("echo:9000", "xecho:9000"),
        ("*.svc.cluster.local:9000", "svc.cluster.local:9000"),
        ("*.svc.cluster.local:9000", "a.svc.cluster.local.evil.test:9000"),
        ("*.svc.cluster.local:9000", "asvc.cluster.local:9000"),
        ("*.svc.cluster.local:9000", "10.0.0.5:9000"),
        ("echo.*.test:1", "echo.a.b.test:1"),
        ("echo.*:1", "echo:1"),
        ("echo*:1", "echo.test:1"),
        ("10.0.0.5:*", "10.0.0.55:80"),
        ("10.0.0.5:*", "[::ffff:10.0.0.5]:80"),
        ("localhost:80", "127.0.0.1:80"),
        ("127.0.0.1:80", "localhost:80"),
        ("127.0.0.1:80", "[::1]:80"),
        ("a.b:1", "axb:1"),
        ("10.0.0.*:80", "10.0.0.evil:80"),
        ("10.0.0.*:80", "10.0.0.1evil:80"),
        ("*.0.0.1*:80", "evil.0.0.1x:80"),
        ("*.0.0.*:80", "0.0.0.evil:80"),
    ],
)
def test_what_a_pattern_does_not_allow(pattern: str, target: str) -> None:
    """Nothing is looked up: what is written is compared."""
    with pytest.raises(NotAllowedError) as caught:
        read_words({"target": target, "expect": "x=1"}, Terms(allow=[Allowed(pattern)]))
    assert caught.value.field == "target"


@pytest.mark.parametrize(
    "host",
    [
        "user@echo",
        "echo/path",
        " echo",
        "echo\n",
        "echo\0",
        "e..cho",
        ".echo",
        "echo..",
        "*",
        "%65cho",
        "\N{FULLWIDTH DIGIT ONE}27.0.0.1",
        "echo。test",
        "ECHO\N{KELVIN SIGN}",
        "zwölf",
        "2130706433",
        "0x7f000001",
        "0x7f.0x1",
        "127.1",
        "0177.0.0.1",
        "127.0.0.01",
        "256.0.0.1",
        "a.1",
        "[::1%25;ls]",
        "[::g]",
        "[1:2]",
        "[v1.x:y]",
    ],
)
def test_other_spellings_of_a_host_are_refused_whatever_is_allowed(host: str) -> None:
    """Python or the resolver would take some of them for an address."""
    with pytest.raises(ConfigError) as caught:
        read_words({"target": f"{host}:80", "expect": "x=1"}, TERMS)
    assert caught.value.field == "target"
    assert not isinstance(caught.value, NotAllowedError)


@pytest.mark.parametrize(
    "pattern",
    [
        *("", "x", ":", ":1", "x:", "x:0", "x:65536", "x:1*", "*", "*:", "**.x y:1", "a@b:1"),
        *("0x7f.1:1", "*.5:80", "[*]:1", "[::*]:1", "a..b:1", "zwölf:1", "::1:80", "127.1:*"),
        *("10.*:80", "10.0.0.0.*:80", "[fe80::1%*]:80", "*[::1]:80"),
    ],
)
def test_a_pattern_that_could_never_match_is_refused(pattern: str) -> None:
    """When the gate starts, and by its option."""
    with pytest.raises(ConfigError) as caught:
        Allowed(pattern)
    assert caught.value.field == "allow"


def either(read: Callable[[], Asked]) -> Asked | None:
    """What is read; None where it is refused, as it should be: with one line."""
    error: ConfigError | None = None
    try:
        return read()
    except ConfigError as caught:
        error = caught
    assert error.reason
    assert error.field.isprintable()
    assert len(str(error).splitlines()) == 1
    return None


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | hostile_text()
    | st.sampled_from(["a:1", "[::1]:80", "one=80,two=20", 10**30, 1e308, -0.0]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(hostile_text(), inner, max_size=4),
    max_leaves=8,
)


@examples(0.5)
@given(st.dictionaries(st.sampled_from(sorted(request._FIELDS)) | hostile_text(), values))  # noqa: SLF001 - see above
@example({"max_errors": 10**12, "margin": 1e-300})
@example({"expect": {"a": 1e308, "b": 1e308}})
@example({"expect": {"a": 5e-324, "b": 1e308}})
@example({"alpha": 5e-324})
def test_any_json_is_read_or_refused(more: dict[str, Any]) -> None:
    """Nothing else is raised; what is read is within the terms."""
    for document in (more, LEAST | more):
        for read, body in ((read_json, document), (read_flagger, FLAGGER | {"metadata": document})):
            found = either(partial(read, json.dumps(body).encode(), TERMS))
            if isinstance(found, Asked):
                assert found.config.budget in range(1, TERMS.max_connections + 1)
                assert found.config.in_flight <= TERMS.max_in_flight


@given(
    st.dictionaries(
        st.sampled_from(sorted(request._FIELDS)) | hostile_text(),  # noqa: SLF001 - see above
        hostile_text() | st.text() | st.integers().map(str) | st.floats().map(str),
    )
)
def test_any_words_are_read_or_refused(words: dict[str, str]) -> None:
    """As with JSON."""
    for each in (words, {"target": "a:1", "expect": "one=1"} | words):
        either(partial(read_words, each, TERMS))


hosts = st.text("ab*.-[]:1%", max_size=8)


@given(hosts, hosts)
def test_what_is_allowed_is_the_pattern_in_another_case(pattern: str, host: str) -> None:
    """Without a wildcard, a pattern allows itself alone, however it is written."""
    try:
        allowed = Allowed(f"{pattern}:1")
        read_words({"target": f"{host}:1", "expect": "x=1"}, Terms(allow=[allowed]))
    except ConfigError:
        return
    if "*" not in pattern and ":" not in pattern:
        assert pattern.strip("[]").removesuffix(".") == host.strip("[]").removesuffix(".")
