"""``trio-echo rehearse``: a route on this machine, with a real Envoy."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import trio
import typer

from trio_echo.cli import logs
from trio_echo.cli.console import write_out
from trio_echo.cli.output import Files, JSONOption, JUnitOption, SVGOption
from trio_echo.cli.performance import Loaded, Performance, Script
from trio_echo.cli.probe import parse_expectation
from trio_echo.cli.serve import parse as parse_serve
from trio_echo.errors import ConfigError, TrioEchoError
from trio_echo.prober import ProbeConfig
from trio_echo.prober.config import DEFAULT_CONNECTIONS
from trio_echo.prober.split import DEFAULT_ALPHA, DEFAULT_MARGIN
from trio_echo.rehearsal import RehearsalError, built_in, courses

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trio_echo.prober import ProbeTLS
    from trio_echo.rehearsal import Route
    from trio_echo.server import ServerConfig

__all__ = ["parse_container", "rehearse"]

_UNMEASURED = 4
_BUILT_IN = "one=80,two=20"
_MOST_WEIGHT = 2**31 - 1


def rehearse(
    manifests: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MANIFEST]...",
            help="Files and folders, kustomizations too; - is stdin. None: a built-in route.",
            show_default=False,
        ),
    ] = None,
    *,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=WEIGHT,...",
            help=f"The backends of the built-in route. [default: {_BUILT_IN}]",
            show_default=False,
        ),
    ] = None,
    expect: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=WEIGHT",
            help="Expect this instead of what the route says; once for each backend.",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(metavar="PORT", help="Rehearse only what listens on this port."),
    ] = None,
    connections: Annotated[
        int, typer.Option(metavar="N", help="Spend at most so many connections on each route.")
    ] = DEFAULT_CONNECTIONS,
    concurrency: Annotated[
        int, typer.Option("-c", "--concurrency", metavar="N", help="Connections in flight at most.")
    ] = 16,
    margin: Annotated[
        float, typer.Option(help="How far a share may be off and still pass.")
    ] = DEFAULT_MARGIN,
    alpha: Annotated[
        float, typer.Option(help="Accepted chance of a wrong PASS, and of a wrong FAIL.")
    ] = DEFAULT_ALPHA,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="For connecting, and again for each answer.")
    ] = 5.0,
    print_envoy: Annotated[
        bool, typer.Option("--print-envoy", help="Print Envoy's configuration, and run nothing.")
    ] = False,
    hold: Annotated[
        bool,
        typer.Option("--hold", help="Then keep the route up, and follow edits of the manifests."),
    ] = False,
    shift: Annotated[
        str | None,
        typer.Option(
            metavar="WEIGHTS,...",
            help="Walk the route through sets of weights, such as 100/0,80/20,0/100.",
        ),
    ] = None,
    json: JSONOption = None,
    junit: JUnitOption = None,
    svg: SVGOption = None,
) -> None:
    """Run a weighted route on this machine with a real Envoy, and judge it.

    Exit code: 0 PASS, 1 FAIL, 2 usage, 3 INCONCLUSIVE, 4 could not measure,
    130 interrupted.
    """
    expected = parse_expectation("expect", expect or ())
    load = _loader(manifests or [], weights, port)

    def configure(
        *, target: str, expect: Mapping[str, float], tls: ProbeTLS | None = None
    ) -> ProbeConfig:
        return ProbeConfig(
            target=target,
            expect=expected or expect,
            connections=connections,
            concurrency=concurrency,
            margin=margin,
            alpha=alpha,
            timeout=timeout,
            tls=tls,
        )

    loaded = load()
    script = Script(
        load=load,
        configure=configure,
        sets=_parse_shift(shift, loaded.route) if shift else (),
        hold=hold,
        files=Files(json, junit, svg),
    )
    # Whatever cannot work is refused before anything starts.
    for course in courses(loaded.route):
        configure(target="127.0.0.1:1", expect=loaded.route.shares(course.chain))
    chosen = {"expect": expect, "json": json, "junit": junit}
    chosen |= {} if shift else {"svg": svg}
    for name, value in chosen.items():
        if value and shift:
            raise ConfigError(name, "does not go with --shift, which judges several splits")
        if value and len(courses(loaded.route)) > 1:
            raise ConfigError(name, f"is for one route; choose it by --port: {_places(loaded)}")
    if print_envoy:
        from trio_echo.rehearsal.by_hand import by_hand  # noqa: PLC0415 - PyYAML, an extra

        write_out(by_hand(loaded.route))
        return
    logs.configure(logs.LogFormat.CONSOLE, logs.LogLevel.WARNING)
    try:
        code = trio.run(Performance(script, loaded).run)
    except RehearsalError as error:
        print(f"trio-echo: {error}", file=sys.stderr)
        code = _UNMEASURED
    raise typer.Exit(code)


def _loader(
    manifests: Sequence[str], weights: str | None, port: int | None
) -> Callable[[], Loaded]:
    """What reads the route, now and after each edit."""
    if not manifests:
        route = built_in(_parse_weights(weights or _BUILT_IN))
        return partial(_only, Loaded(route, (), ()), port)
    if weights is not None:
        raise ConfigError("weights", "are for the built-in route; the manifests have their own")
    standard_input = sys.stdin.read() if "-" in manifests else ""

    def load() -> Loaded:
        try:
            from trio_echo.rehearsal.kustomize import read_manifests  # noqa: PLC0415 - an extra
            from trio_echo.rehearsal.plan import make_plan  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise RehearsalError(
                f"reading manifests needs {error.name}; install it with:"
                " pip install 'trio-echo[rehearse]'"
            ) from None
        found = read_manifests(manifests, standard_input)
        plan = make_plan(found.documents, parse_container)
        return _only(Loaded(plan.route, plan.notices, tuple(found.files)), port)

    return load


def parse_container(arguments: Sequence[str], environment: Mapping[str, str]) -> ServerConfig:
    """Read a container's command line with the parser of ``serve`` itself.

    Raises:
        TrioEchoError: it would not start.
    """
    if {"-h", "--help"} & set(arguments):
        raise TrioEchoError("--help starts no server")
    try:
        return parse_serve(arguments, environment)
    except typer.TyperException as error:
        raise TrioEchoError(error.format_message()) from None


def _only(loaded: Loaded, port: int | None) -> Loaded:
    """Only what listens on a port; everything where none is given."""
    listeners = tuple(each for each in loaded.route.listeners if port in {None, each.port})
    if not listeners:
        raise ConfigError("port", f"nothing listens on {port}; what listens: {_places(loaded)}")
    return replace(loaded, route=replace(loaded.route, listeners=listeners))


def _places(loaded: Loaded) -> str:
    """The listeners with their ports."""
    return ", ".join(f"{each.port} ({each.name})" for each in loaded.route.listeners)


def _parse_weights(text: str) -> dict[str, int]:
    """Read ``one=80,two=20``.

    Raises:
        ConfigError: it is of another form, or a weight is no whole number.
    """
    weights = parse_expectation("weights", text.split(","))
    if any(not each.is_integer() or not 0 <= each <= _MOST_WEIGHT for each in weights.values()):
        raise ConfigError("weights", f"must be whole numbers from 0, got {text!r}")
    if "" in weights or not any(weights.values()):
        raise ConfigError("weights", f"must have names, and one weight above 0, got {text!r}")
    return {name: int(weight) for name, weight in weights.items()}


def _parse_shift(text: str, route: Route) -> tuple[tuple[int, ...], ...]:
    """Read ``100/0,80/20``: sets of weights in the order of the route's destinations.

    Raises:
        ConfigError: it is of another form, or the route has not one split.
    """
    found = courses(route)
    if len(found) != 1 or found[0].server_name is not None:
        places = ", ".join(f"{each.listener.port} ({each.listener.name})" for each in found)
        raise ConfigError("shift", f"walks one route without TLS; choose it by --port: {places}")
    order = [each.name for each in found[0].chain.destinations]
    sets: list[tuple[int, ...]] = []
    for each in text.split(","):
        numbers = each.split("/")
        if not all(number.isascii() and number.isdigit() for number in numbers):
            raise ConfigError("shift", f"must be weights as 100/0,80/20, got {text!r}")
        weights = tuple(map(int, numbers))
        if len(weights) != len(order) or not 0 < sum(weights) <= _MOST_WEIGHT:
            raise ConfigError(
                "shift",
                f"must have a weight for each of {', '.join(order)},"
                f" one of them above 0, got {each!r}",
            )
        sets.append(weights)
    return tuple(sets)
