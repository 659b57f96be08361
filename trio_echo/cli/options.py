"""Options that commands share, each under its subject in the help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = [
    "EACH",
    "EFFORT",
    "EXPECTED",
    "RESULTS",
    "AlphaOption",
    "CertOption",
    "ExpectOption",
    "GitHubOption",
    "IdentifyCertOption",
    "IdentifyOption",
    "JSONOption",
    "JUnitOption",
    "KeyOption",
    "MarginOption",
    "PNGOption",
    "ProxyOption",
    "SNIOption",
    "SVGOption",
    "SendOption",
    "SourceOption",
    "TLSCAOption",
    "TLSOption",
    "TimeoutOption",
    "ToleranceOption",
    "option",
]

EXPECTED = "What is expected"
EFFORT = "How much is measured"
EACH = "Each connection"
_PROTOCOL = "Who answers"
_TLS = "TLS"
RESULTS = "Results"


def option(subject: str, metavar: str | None, text: str, *flags: str, **settings: Any) -> Any:
    """Declare an option. Where `text` tells the default, only `text` does.

    Args:
        subject: the heading that it stands under in the help.
        metavar: its value in the help; None for a switch.
        text: what it is for, as an order.
        flags: its names, where they are not that of the parameter.
        settings: what else typer shall know.
    """
    shown = "[default: " not in text
    return typer.Option(
        *flags, metavar=metavar, help=text, rich_help_panel=subject, show_default=shown, **settings
    )


ExpectOption = Annotated[
    list[str] | None,
    option(
        EXPECTED,
        "NAME=WEIGHT",
        "A backend and its weight. Repeat it, or separate several by commas.",
    ),
]
MarginOption = Annotated[
    float | None,
    option(
        EXPECTED,
        "SHARE",
        "A share that is off by this much or more does not pass; 0.05 is 5 points."
        " [default: 0.05, or half the smallest share if that is less]",
    ),
]
ToleranceOption = Annotated[
    float,
    option(EXPECTED, "SHARE", "A share that is off by this much or less does not fail."),
]
AlphaOption = Annotated[
    float, option(EXPECTED, "CHANCE", "Accepted chance of a wrong PASS, and of a wrong FAIL.")
]
TimeoutOption = Annotated[
    float,
    option(
        EFFORT,
        "SECONDS",
        "Give up a connection that takes this long to connect, or to answer a line.",
    ),
]
SourceOption = Annotated[
    list[str] | None,
    option(EACH, "IP", "Connect from this address. Repeat it to take turns between several."),
]
SendOption = Annotated[
    str | None,
    option(
        _PROTOCOL,
        "TEXT",
        r"Send this in place of our own line; \r \n \t \0 \\ \xNN are understood. "
        "Empty, or without it: the server speaks first.",
    ),
]
IdentifyOption = Annotated[
    str | None,
    option(
        _PROTOCOL,
        "REGEX",
        "Name the backend by the first group of this expression (RE2) in what comes back, with "
        "the package google-re2.",
    ),
]
IdentifyCertOption = Annotated[
    str | None,
    option(
        _PROTOCOL,
        "FIELD",
        "Name the backend by its TLS certificate, and send nothing: cn, san, serial or sha256. "
        "Implies --tls.",
    ),
]
ProxyOption = Annotated[
    str | None,
    option(_PROTOCOL, "VERSION", "Begin each connection with a PROXY header, v1 or v2."),
]
TLSOption = Annotated[bool, option(_TLS, None, "Speak TLS, and verify the certificate.", "--tls")]
TLSCAOption = Annotated[
    Path | None, option(_TLS, "FILE", "Trust these authorities, in PEM. Implies --tls.")
]
SNIOption = Annotated[str | None, option(_TLS, "NAME", "Ask for this server name. Implies --tls.")]
CertOption = Annotated[
    Path | None, option(_TLS, "FILE", "Present this certificate, in PEM. Implies --tls.")
]
KeyOption = Annotated[
    Path | None, option(_TLS, "FILE", "Private key, in PEM, if --tls-cert does not hold it.")
]
JSONOption = Annotated[
    str | None, option(RESULTS, "FILE", "Write the report as JSON; - for stdout.")
]
JUnitOption = Annotated[
    str | None, option(RESULTS, "FILE", "Write the verdict as JUnit XML; - for stdout.")
]
SVGOption = Annotated[
    str | None, option(RESULTS, "FILE", "Draw the report as one picture; - for stdout.")
]
PNGOption = Annotated[
    str | None,
    option(RESULTS, "FILE", "Draw the report as PNG, with the package resvg-py; - for stdout."),
]
GitHubOption = Annotated[
    bool | None,
    option(
        RESULTS,
        None,
        "Tell GitHub Actions: annotations, the step's summary, its output verdict."
        " --no-github: do not. [default: on in GitHub Actions]",
        "--github/--no-github",
    ),
]
