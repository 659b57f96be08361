"""What is asked of a gate, and what it allows. Pure.

A request is a set of values by name: the fields of `ProbeConfig`, ``settle`` and
``sni``. They come as JSON, or as words: Flagger's metadata and a URL's query hold
nothing else. What a field may be follows from its type in `ProbeConfig`, so that a
new field there can be asked for without a line here.

What names a file is no field of a request: whoever may ask the gate may not read its
files. Certificates are options of the gate, and a request says ``tls`` and ``sni``.

A target is matched as it is written, before any name is looked up. What may stand
there is so narrow that an address has one spelling: no user, no path, no other
alphabet (Python folds some into ASCII), no IPv4 address as one number, in octal or with
parts left out. A name that is allowed leads wherever DNS says it does; whoever allows
it trusts that.
"""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from ipaddress import IPv4Address, IPv6Address
from math import isfinite
from types import NoneType
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from trio_echo.errors import ConfigError
from trio_echo.prober.config import ProbeConfig, ProbeTLS, parse_expectation, split_target
from trio_echo.prober.dialogue import unescape
from trio_echo.prober.split import MOST_CONNECTIONS
from trio_echo.text import printable

__all__ = [
    "Allowed",
    "Asked",
    "NotAllowedError",
    "Terms",
    "read_flagger",
    "read_json",
    "read_words",
]

_SETTLE = 5.0
"""Seconds. With these a usual probe ends within the ten seconds that Argo Rollouts and
Flagger wait unless told otherwise."""

_MOST_BACKENDS = 64
"""Backends that a request may expect. Each costs time at each look at the counts."""

_MOST_LINES = 1000
_MOST_SENT = 2**20
"""Lines, and their bytes, that a request may have each connection send."""

_LARGEST = 10**12
"""The largest whole number that a field may hold."""

_BEFORE = 30
"""Characters before an error of syntax that are shown."""

_LONGEST = 60
"""Characters of a value that an error shows."""


class NotAllowedError(ConfigError):
    """The gate does not probe this target."""


class Allowed:
    """A pattern of targets: ``HOST:PORT`` with wildcards.

    ``*`` as the first label stands for one label or more; elsewhere it stands for any
    characters of one label. ``*`` as the port stands for any port. Where all that is no
    wildcard is digits, the pattern has four parts and matches IPv4 addresses alone. An
    IPv6 address stands in brackets and has no wildcard.

    Raises:
        ConfigError: it is of another form.
    """

    def __init__(self, pattern: str) -> None:
        host, colon, port = pattern.rpartition(":")
        any_port = port == "*"
        # Names may begin like an address: 10.0.0.example.
        numeric = re.fullmatch(r"[0-9.*]*[0-9][0-9.*]*", host) is not None
        any_character, filler = ("[0-9]*", "1") if numeric else ("[^.]*", "x")
        try:
            # What is no wildcard must be what a target may be.
            literal, number = _place(
                re.sub(r"\*(?![^[]*])", filler, host) + colon + ("1" if any_port else port)
            )
        except ConfigError:
            reason = (
                "must be HOST:PORT, such as *.svc.cluster.local:9000 or 10.0.0.5:*,"
                f" got '{printable(pattern)}'"
            )
            raise ConfigError("allow", reason) from None
        host = host.lower().removesuffix(".") if "*" in host else literal
        self._port = None if any_port else number
        first, dot, rest = host.partition(".")
        labels = re.escape(dot + rest).replace(r"\*", any_character)
        any_labels = first == "*" and not numeric
        first = ".+" if any_labels else re.escape(first).replace(r"\*", any_character)
        self._host = re.compile(first + labels)

    def matches(self, host: str, port: int) -> bool:
        """Whether a target is meant, its host in its one spelling."""
        return self._port in {None, port} and self._host.fullmatch(host) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a gate allows.

    Attributes:
        allow: the targets that it probes.
        max_connections: connections that a request may ask for, and gets at most, those
            of its second look with them.
        max_in_flight: connections in flight at a time.
        max_rate: connections a second.
        max_seconds: seconds for one request from the time that it is not waiting any
            more.
        tls: what TLS towards the target takes; a request may set the server name.

    Raises:
        ConfigError: a value cannot work.
    """

    allow: Sequence[Allowed]
    max_connections: int = MOST_CONNECTIONS
    max_in_flight: int = 256
    max_rate: float = 1000.0
    max_seconds: float = 60.0
    tls: ProbeTLS = ProbeTLS()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        if not self.allow:
            reason = "is missing; name the targets to probe, such as *.svc.cluster.local:9000"
            raise ConfigError("allow", reason)
        for name in ("max_connections", "max_in_flight", "max_rate", "max_seconds"):
            value = getattr(self, name)
            if not (isfinite(value) and value > 0):
                raise ConfigError(name, f"must be more than 0, got {value:g}")


class Asked(NamedTuple):
    """A request that the gate carries out.

    Attributes:
        config: what to probe; its connections, those of its second look and its
            concurrency are within the terms.
        settle: seconds to wait at most until the new split shows.
    """

    config: ProbeConfig
    settle: float


def read_json(body: bytes, terms: Terms) -> Asked:
    """Read a JSON object.

    Raises:
        NotAllowedError: the target is outside the terms.
        ConfigError: names the field, or ``body``.
    """
    return _read(_object(body), terms, _SETTLE, word=False)


def read_flagger(body: bytes, terms: Terms) -> Asked:
    """Read the body of Flagger's webhooks, whose metadata holds words.

    Raises:
        NotAllowedError: the target is outside the terms.
        ConfigError: names the field, ``metadata`` or ``body``.
    """
    metadata = _object(body).get("metadata")
    if not isinstance(metadata, dict) or not all(
        isinstance(each, str) for each in metadata.values()
    ):
        raise ConfigError(
            "metadata", f"must hold target and expect as text, got {_shown(metadata)}"
        )
    return read_words(metadata, terms)


def read_words(words: Mapping[str, str], terms: Terms, settle: float = _SETTLE) -> Asked:
    """Read words by name; ``expect`` is ``one=80,two=20`` or ``one:80,two:20``.

    Args:
        words: by the name of their field.
        terms: what is allowed.
        settle: what holds where nothing is said of it.

    Raises:
        NotAllowedError: the target is outside the terms.
        ConfigError: names the field.
    """
    return _read(words, terms, settle, word=True)


def _read(given: Mapping[str, Any], terms: Terms, settle: float, *, word: bool) -> Asked:
    """Read the fields, hold them against the terms, and fill in what these say."""
    values = {
        name: _kind(name).read(name, value, word=word)
        for name, value in given.items()
        if value is not None or name not in _OPTIONAL
    }
    for name, example in (("target", "tcp-echo:9000"), ("expect", "one=80,two=20")):
        if not values.get(name):
            raise ConfigError(name, f"is missing; such as {example}")
    if len(values["expect"]) > _MOST_BACKENDS:
        reason = f"must be at most {_MOST_BACKENDS} backends, got {len(values['expect'])}"
        raise ConfigError("expect", reason)
    host, port = _place(values["target"])
    if not any(each.matches(host, port) for each in terms.allow):
        target = printable(values["target"])
        raise NotAllowedError(
            "target", f"'{target}' is not allowed; an --allow of the gate must name it"
        )
    settle = values.pop("settle", settle)
    wanted = values.pop("tls", None)
    implying = [name for name in ("sni", "identify_cert") if name in values]
    if implying and wanted is False:
        raise ConfigError(implying[0], "needs tls, which is false")
    name = values.pop("sni", None)
    if wanted or implying:
        values["tls"] = replace(terms.tls, server_name=name)
    try:
        config = ProbeConfig(**values)
    except ConfigError as error:
        raise ConfigError(_NAMES.get(error.field, error.field), error.reason) from None
    _check(config, settle, terms)
    connections = min(config.budget or terms.max_connections, terms.max_connections)
    return Asked(
        replace(
            config,
            connections=connections,
            second_look=min(config.second_look, terms.max_connections - connections),
            concurrency=min(config.in_flight, terms.max_in_flight),
        ),
        settle,
    )


_EXAMPLE = '{"target": "tcp-echo:9000", "expect": {"one": 80, "two": 20}}'

_NAMES = {"source_address": "source_addresses"}
"""Fields that an error names by their option."""


def _check(config: ProbeConfig, settle: float, terms: Terms) -> None:
    """Refuse what is beyond the terms.

    Raises:
        ConfigError: names the field and the gate's option.
    """
    for name, value, limit in (
        ("connections", config.connections, "max_connections"),
        ("concurrency", config.concurrency, "max_in_flight"),
        ("rate", config.rate, "max_rate"),
        ("timeout", config.timeout, "max_seconds"),
    ):
        most = getattr(terms, limit)
        if value is not None and value > most:
            option = "--" + limit.replace("_", "-")
            raise ConfigError(
                name, f"must be at most {most:g}, {option} of the gate, got {value:g}"
            )
    if config.lines > _MOST_LINES:
        raise ConfigError("lines", f"must be at most {_MOST_LINES} here, got {config.lines}")
    sent = config.lines * (config.payload_size or 0)
    if sent > _MOST_SENT:
        reason = f"x lines must be at most {_MOST_SENT} bytes here, got {sent}"
        raise ConfigError("payload_size", reason)
    if settle < 0:
        raise ConfigError("settle", f"must not be negative, got {settle:g}")
    times = {"settle": settle, "wait": config.wait, "duration": config.duration or 0.0}
    total = sum(times.values())
    if total > terms.max_seconds:
        longest = max(times, key=lambda name: times[name])
        reason = (
            f"{' + '.join(times)} must be at most {terms.max_seconds:g} s, --max-seconds of the"
            f" gate, got {total:g}"
        )
        raise ConfigError(longest, reason)


def _place(target: str) -> tuple[str, int]:
    """Host and port of a target, the host in its one spelling.

    Raises:
        ConfigError: names ``target``.
    """
    host, port = split_target(target)
    try:
        return _one_spelling(host), port
    except ValueError as error:
        reason = f"must be HOST:PORT, {error}, got '{printable(target)}'"
        raise ConfigError("target", reason) from None


def _one_spelling(host: str) -> str:
    """A host in lower case, an IPv6 address in its shortest form and in brackets.

    Raises:
        ValueError: it is neither a name nor an address as it is usually written.
    """
    if not host.isascii():
        raise ValueError("the host in ASCII: an international name begins with xn--")
    host = host.lower()
    if ":" in host:
        address, mark, interface = host.partition("%")
        if mark and not re.fullmatch("[a-z0-9._-]+", interface):
            raise ValueError("the host with a plain interface behind the %")
        try:
            return f"[{IPv6Address(address).compressed}{mark}{interface}]"
        except ValueError:
            raise ValueError("the host a valid IPv6 address") from None
    host = host.removesuffix(".")
    # Resolvers take other forms for an address too: 2130706433, 0x7f.1, 127.1.
    if re.fullmatch(r"(.*\.)?([0-9]+|0x[0-9a-f]*)", host):
        try:
            return str(IPv4Address(host))
        except ValueError:
            raise ValueError("an IPv4 address as four decimal numbers") from None
    if not re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", host):
        raise ValueError("the host of letters, digits, hyphens and dots")
    return host


def _object(body: bytes) -> dict[str, Any]:
    """Read a JSON object in UTF-8, without what JSON does not have.

    Raises:
        ConfigError: names ``body``, or a field that is there twice.
    """
    try:
        found = json.loads(
            body.decode(), object_pairs_hook=_no_field_twice, parse_constant=_no_constant
        )
    except ConfigError:
        raise
    except json.JSONDecodeError as error:
        before = printable(error.doc[max(0, error.pos - _BEFORE) : error.pos])
        what = f"{error.msg[:1].lower()}{error.msg[1:]}"
        reason = f"must be JSON; {what} at line {error.lineno}, column {error.colno}"
        raise ConfigError("body", reason + (f", after '{before}'" if before else "")) from None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ConfigError("body", f"must be a JSON object, such as {_EXAMPLE}")
    return found


def _no_field_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(printable(twice), "is there twice")
    return found


def _no_constant(_: str) -> None:
    raise ValueError


def _shown(value: Any) -> str:
    """A value as JSON, in ASCII and not too long."""
    text = json.dumps(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


class _Kind(NamedTuple):
    """What a field may be.

    Attributes:
        what: in words.
        json: takes a JSON value; raises a ValueError, or a TypeError, for another one.
        word: the same for text.
    """

    what: str
    json: Callable[[Any], Any]
    word: Callable[[str], Any]

    def read(self, name: str, value: Any, *, word: bool) -> Any:
        """Read a value.

        Raises:
            ConfigError: it is no such thing.
        """
        try:
            return self.word(value) if word else self.json(value)
        except ConfigError as error:
            raise ConfigError(name, error.reason) from None
        except (ValueError, TypeError, LookupError, OverflowError):
            raise ConfigError(name, f"must be {self.what}, got {_shown(value)}") from None


def _instance(*types: type) -> Callable[[Any], Any]:
    """Take nothing but exactly these types: a bool is no number here."""

    def check(value: Any) -> Any:
        if type(value) not in types:
            raise TypeError
        return value

    return check


def _whole(value: Any) -> int:
    number: int = _instance(int)(value)
    if abs(number) > _LARGEST:
        raise ValueError
    return number


def _number(value: Any) -> float:
    number = float(_instance(int, float)(value))
    if not isfinite(number):
        raise ValueError
    return number


def _whole_word(word: str) -> int:
    # Python's own int takes more than a number looks like, such as 90_00.
    if not re.fullmatch("[+-]?[0-9]{1,12}", word):
        raise ValueError
    return int(word)


def _number_word(word: str) -> float:
    if not re.fullmatch("[-+.0-9eE]{1,40}", word):
        raise ValueError
    return _number(float(word))


def _weights(value: Any) -> dict[str, float]:
    if isinstance(value, str):
        return _weights_word(value)
    return {name: _number(weight) for name, weight in _instance(dict)(value).items()}


def _weights_word(word: str) -> dict[str, float]:
    return parse_expectation("expect", [word], marks="=:")


def _texts(value: Any) -> list[str]:
    return [_instance(str)(each) for each in _instance(list)(value)]


_KINDS: dict[Any, _Kind] = {
    bool: _Kind("true or false", _instance(bool), {"true": True, "false": False}.__getitem__),
    int: _Kind("a whole number", _whole, _whole_word),
    float: _Kind("a number", _number, _number_word),
    str: _Kind("text", _instance(str), str),
    bytes: _Kind("text", lambda value: unescape(_instance(str)(value)), unescape),
    Mapping: _Kind("weights by name, such as one=80,two=20", _weights, _weights_word),
    Sequence: _Kind("a list of texts", _texts, lambda word: word.split(",")),
}


def _kind_of(hint: Any) -> _Kind:
    """The kind of a field by its type."""
    [hint] = (
        [each for each in get_args(hint) if each is not NoneType] if _optional(hint) else [hint]
    )
    if get_origin(hint) is Literal:
        choices = {each: each for each in get_args(hint)}
        return _Kind(f"one of {', '.join(choices)}", choices.__getitem__, choices.__getitem__)
    return _KINDS[get_origin(hint) or hint]


def _optional(hint: Any) -> bool:
    return NoneType in get_args(hint)


_HINTS = {
    **get_type_hints(ProbeConfig, localns=vars(typing)),
    "tls": bool | None,
    "sni": str | None,
    "settle": float,
}
_NO_FIELDS = {each.name for each in fields(ProbeConfig) if not each.init}
_FIELDS = {name: _kind_of(hint) for name, hint in _HINTS.items() if name not in _NO_FIELDS}
_OPTIONAL = {name for name, hint in _HINTS.items() if _optional(hint)}
_FILES = {"tls_ca", "tls_cert", "tls_key"}


def _kind(name: str) -> _Kind:
    """The kind of a field.

    Raises:
        ConfigError: there is no such field.
    """
    if name in _FIELDS:
        return _FIELDS[name]
    shown = printable(name[:_LONGEST])
    if name in _FILES:
        option = name.replace("_", "-")
        raise ConfigError(shown, f"is no field of a request; start the gate with --{option}")
    close = get_close_matches(name[:_LONGEST], _FIELDS, 1)
    remedy = f"did you mean {close[0]}?" if close else f"there are {', '.join(_FIELDS)}"
    raise ConfigError(shown, f"is no field of a request; {remedy}")
