"""``trio-echo rehearse``: a route on this machine, with a real Envoy."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import trio
import typer

from trio_echo.cli.logs import LogFormat, LogLevel, logging_to
from trio_echo.cli.options import (
    EFFORT,
    EXPECTED,
    AlphaOption,
    GitHubOption,
    JSONOption,
    JUnitOption,
    MarginOption,
    PNGOption,
    SVGOption,
    TimeoutOption,
    ToleranceOption,
    option,
)
from trio_echo.cli.output import ExitCode, Output, Words, exit_code, write_out
from trio_echo.cli.serve import parse as parse_serve
from trio_echo.cli.signals import expect, interruptible, received
from trio_echo.cli.tally import follow, wipe
from trio_echo.errors import ConfigError, ManifestError, TrioEchoError
from trio_echo.prober.config import ProbeConfig, parse_expectation
from trio_echo.prober.split import DEFAULT_ALPHA
from trio_echo.rehearsal.dataplane import DEFAULT, PLANES, run_by
from trio_echo.rehearsal.judge import targets
from trio_echo.rehearsal.route import DRAIN, Plan, built_in
from trio_echo.rehearsal.run import Events, Result, read_plan, run
from trio_echo.rehearsal.shift import walk_to_json, walk_to_svg
from trio_echo.rehearsal.testbed import one_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from trio_echo.prober.config import ProbeTLS
    from trio_echo.prober.schedule import Tally
    from trio_echo.prober.words import Report
    from trio_echo.rehearsal.envoy import Plane
    from trio_echo.rehearsal.judge import CrossCheck, Target
    from trio_echo.rehearsal.route import Destination, Listener, Notice
    from trio_echo.rehearsal.shift import Step
    from trio_echo.server.config import ServerConfig

__all__ = ["parse_container", "rehearse"]

_ROUTE = "The route"
_BUILT_IN = "one=80,two=20"
_MOST_WEIGHT = 2**31 - 1
_ALL = 100


def rehearse(
    manifests: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MANIFEST",
            help="Files, folders and kustomizations; - for standard input."
            " [default: a built-in route]",
            show_default=False,
        ),
    ] = None,
    *,
    weights: Annotated[
        str | None,
        option(
            _ROUTE,
            "NAME=WEIGHT,...",
            f"Names and weights of the built-in route. [default: {_BUILT_IN}]",
        ),
    ] = None,
    port: Annotated[
        int | None, option(_ROUTE, "PORT", "Rehearse only the listener on this port.")
    ] = None,
    plane: Annotated[
        str | None,
        option(
            _ROUTE,
            "NAME",
            "Run Gateways as this data plane does: istio, or envoy-gateway."
            " [default: what their class says]",
            "--as",
        ),
    ] = None,
    shift: Annotated[
        str | None,
        option(
            _ROUTE,
            "WEIGHTS,...",
            "Change the weights step by step, such as 100/0,80/20,0/100; rollout for the steps"
            " of the Rollout among the manifests.",
        ),
    ] = None,
    drain: Annotated[
        int | None,
        option(
            _ROUTE,
            "SECONDS",
            "With --shift or --hold: cut open connections this long after their listener"
            f" changed, as drainDuration of Istio says. [default: {DRAIN}]",
        ),
    ] = None,
    hold: Annotated[
        bool,
        option(
            _ROUTE,
            None,
            "Keep the route up after the verdict, and follow edits of the manifests.",
            "--hold",
        ),
    ] = False,
    print_envoy: Annotated[
        bool,
        option(_ROUTE, None, "Print Envoy's configuration, and run nothing.", "--print-envoy"),
    ] = False,
    expect: Annotated[
        list[str] | None,
        option(EXPECTED, "NAME=WEIGHT", "Expect these weights, not those of the route."),
    ] = None,
    margin: MarginOption = None,
    tolerance: ToleranceOption = 0.0,
    alpha: AlphaOption = DEFAULT_ALPHA,
    connections: Annotated[
        int | None,
        option(
            EFFORT,
            "N",
            "Open at most N connections to each route. [default: what a right split needs]",
        ),
    ] = None,
    concurrency: Annotated[
        int,
        option(EFFORT, "N", "Keep at most N connections open at a time.", "-c", "--concurrency"),
    ] = 16,
    timeout: TimeoutOption = 5.0,
    json: JSONOption = None,
    junit: JUnitOption = None,
    svg: SVGOption = None,
    png: PNGOption = None,
    github: GitHubOption = None,
) -> None:
    """Run a weighted route on this machine with a real Envoy, and judge it.

    Exit codes: 0 PASS; 1 FAIL; 2 wrong usage; 3 INCONCLUSIVE; 4 could not
    measure or could not write; 70 a fault of trio-echo; 130 interrupted.

    Examples:
    trio-echo rehearse
    trio-echo rehearse manifests/ --json report.json
    trio-echo rehearse route.yaml --shift 100/0,80/20,0/100
    """
    expected = parse_expectation("expect", expect or ())
    load = _loader(manifests or [], weights, port, _parse_plane(plane))

    def configure(
        *, target: str, expect: Mapping[str, float], tls: ProbeTLS | None = None
    ) -> ProbeConfig:
        return ProbeConfig(
            target=target,
            expect=expected or expect,
            connections=connections,
            concurrency=concurrency,
            margin=margin,
            tolerance=tolerance,
            alpha=alpha,
            timeout=timeout,
            tls=tls,
        )

    output = Output(json, junit, svg, png, github=github)
    if drain is not None and drain < 0:
        raise ConfigError("drain", f"must be 0 or more seconds, got {drain}")
    if drain is not None and not (shift or hold):
        raise ConfigError("drain", "goes with --shift or --hold; nothing changes the route else")
    try:
        with interruptible():
            plan = replace(load(), drain=DRAIN if drain is None else drain)
    except ManifestError as error:
        # Where the manifests are wrong is more than the message alone.
        _write_error(output, error)
        raise
    sets = _parse_shift(shift, plan) if shift else ()
    # Whatever cannot work is refused before anything starts.
    found = targets(plan.route)
    for target in found:
        configure(target="127.0.0.1:1", expect=plan.route.shares(target.chain))
    if expect and shift:
        raise ConfigError("expect", "does not go with --shift, which judges several splits")
    for name, value in {"expect": expect, "svg": svg, "png": png}.items():
        if value and len(found) > 1:
            raise ConfigError(name, f"is for one route; choose it by --port: {_places(plan)}")
    if print_envoy:
        from trio_echo.rehearsal.dataplane import by_hand  # noqa: PLC0415 - PyYAML, an extra

        write_out(by_hand(plan.route))
        return
    command = _Command(plan, output)
    with logging_to(LogFormat.CONSOLE, LogLevel.WARNING):
        code = trio.run(
            command.run, plan, configure, sets, partial(load, again=True) if hold else None
        )
    raise typer.Exit(output.end(code))


class _Command(Events):
    """Prints what happens in a run, and obeys signals."""

    def __init__(self, plan: Plan, output: Output) -> None:
        self._several = len(targets(plan.route)) > 1
        self._output = output
        self._aside = Words(stderr=True)
        self._tally: Tally | None = None
        self._live: trio.Nursery | None = None
        self._interrupted = False
        self._holding = False
        self._code = 0
        self._cases: dict[str, Report] = {}
        self._finished = False
        self._listener = plan.route.listeners[0].title

    async def run(
        self,
        plan: Plan,
        configure: Callable[..., ProbeConfig],
        sets: Sequence[Sequence[int]],
        reload: Callable[[], Plan] | None,
    ) -> int:
        """Run the plan; return the exit code."""
        with one_error(), received() as signals:
            async with trio.open_nursery() as nursery:
                self._live = nursery
                nursery.start_soon(self._obey, signals, nursery.cancel_scope)
                await run(plan, configure, sets=sets, reload=reload, events=self)
                nursery.cancel_scope.cancel()
        if self._interrupted and self._cases and not self._finished:
            so_far = Result(
                tuple(self._cases.values()), warnings=plan.warnings, notices=plan.notices
            )
            self._write_documents(so_far, interrupted=True)
        return ExitCode.INTERRUPTED if self._interrupted else self._code

    async def _obey(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        """Stop the probe at the first signal and print what it has; end all at the next.

        A route that is held has its verdict: there a signal is the end that
        the user meant. A probe that was interrupted is followed by no hold.
        """
        async for _ in signals:
            if self._tally is None or self._interrupted:
                scope.cancel()
            else:
                self._tally.stop()
            self._interrupted = not self._holding

    def noted(self, notice: Notice) -> None:
        self._say(f"note: {notice}")

    def warned(self, warning: Notice) -> None:
        self._aside.print(f"warning: {warning.placed}", style="open")
        self._output.warn_github(warning.text, warning.file, warning.line)

    def up(self, listener: Listener, port: int) -> None:
        instead = f", as {listener.port} is not free" if port != listener.port else ""
        plane = PLANES[listener.plane]
        self._say(
            f"{listener.title}: Envoy on 127.0.0.1:{port}{instead},"
            f" the way {plane.title} runs it: {plane.way}"
        )

    def probing(self, tally: Tally) -> None:
        assert self._live is not None  # noqa: S101 - `run` has set it
        self._tally = tally
        self._live.start_soon(self._follow, tally)

    async def _follow(self, tally: Tally) -> None:
        """Show a tally until its probe has ended."""
        with trio.CancelScope() as self._showing:
            await follow(tally)

    def _ended(self) -> None:
        """The probe has ended: its tally is shown no longer."""
        self._tally = None
        self._showing.cancel()
        wipe()

    def judged(self, target: Target, report: Report, check: CrossCheck) -> None:
        self._ended()
        if self._several:
            self._print(f"\n{_title(target)}")
        self._code = max(self._code, exit_code(report))
        style = "" if report.verdict is None else _STYLES.get(report.verdict, "open")
        first, *rest = str(report).splitlines()
        self._output.words.print(first, style)
        self._print("\n".join([*rest, str(check)]))
        self._cases[_title(target)] = report

    def shifting(self, shares: Mapping[str, float]) -> None:
        self._print(f"shift to {_in_words(shares)}")

    def stepped(self, step: Step) -> None:
        self._ended()
        headline = str(step.report).partition("\n")[0]
        self._print(f"{headline}\n{step.check}")
        self._code = max(self._code, exit_code(step.report))
        self._cases[f"{self._listener}: {_in_words(step.weights)}"] = step.report

    def holding(self, target: Target, port: int) -> None:
        if self._interrupted:
            assert self._live is not None  # noqa: S101 - `run` has set it
            self._live.cancel_scope.cancel()
            return
        self._holding = True
        expect()
        if target.server_name is None:
            self._print(f"holding; try: echo world | nc -N 127.0.0.1 {port}")
        else:
            ask = f"openssl s_client -quiet -connect 127.0.0.1:{port}"
            self._print(f"holding; try: {ask} -servername {target.server_name}")

    def accepted(self, counts: Mapping[str, int]) -> None:
        self._say(f"since the last shift: {_in_words(counts)}")

    def shifted(self, target: Target, shares: Mapping[str, float], cut: int | None) -> None:
        fate = "stay" if cut is None else f"are cut in {cut} s"
        self._print(
            f"shifted {_title(target)}: {_in_words(shares)}; open connections {fate}{_dead(target)}"
        )

    def opened(self, target: Target, shares: Mapping[str, float]) -> None:
        self._print(f"opened {_title(target)}: {_in_words(shares)}{_dead(target)}")

    def closed(self, target: Target, cut: int) -> None:
        self._print(
            f"closed {_title(target)}: new connections are refused, open ones are cut in {cut} s"
        )

    def unchanged(self) -> None:
        self._say("edited: what is routed is the same, open connections stay")

    def refused(self, error: TrioEchoError) -> None:
        self._say(f"edit refused, the last good route stays: {error}")

    def settling(self, seconds: float) -> None:
        self._say(
            f"waiting {seconds:.0f} s to see what happens to open connections after the drain time"
        )

    def undone(self) -> None:
        self._say("the refused edit is undone: the manifests match the route that is up")

    def finished(self, result: Result) -> None:
        """Print the walk, and write the documents."""
        self._finished = True
        walk = result.walk
        if walk is not None:
            self._print(str(walk))
            if any(cut.drained for cut in walk.cuts):
                self._print(_REMEDY)
            self._code = max(self._code, ExitCode.FAIL if walk.lost else 0)
        self._write_documents(result)
        self._output.tell_github(
            self._cases,
            result.verdict,
            [*(str(walk).split("\n") if walk else ()), *map(str, result.warnings)],
            fault=str(walk) if walk and walk.lost else "",
        )

    def _write_documents(self, result: Result, *, interrupted: bool = False) -> None:
        """Write the documents that were asked for: of one report, or of several.

        Args:
            result: what they are about.
            interrupted: whether more was to come; then there is no picture.
        """
        from trio_echo.prober import document, junit, picture  # noqa: PLC0415 - rarely needed

        walk, first = result.walk, result.reports[0]
        aside = {"warning": result.warnings, "note": result.notices}

        def to_json() -> str:
            more: dict[str, object] = {
                f"{kind}s": [asdict(each) for each in found] for kind, found in aside.items()
            }
            if walk is None and len(result.reports) == 1 and not interrupted:
                return document.to_json(first, **more)
            more |= {"interrupted": True} if interrupted else {}
            return document.several_json(self._cases, walk=walk and walk_to_json(walk), **more)

        def to_junit() -> str:
            lines = [
                f"{each.file}:{each.line}: {kind}: {each}" if each.file else f"{kind}: {each}"
                for kind, found in aside.items()
                for each in found
            ]
            lines += ["interrupted: more was to be judged"] * interrupted
            return junit.several_junit(self._cases, lines)

        def to_svg() -> str:
            return picture.to_svg(first) if walk is None else walk_to_svg(walk)

        self._output.write(
            json=to_json,
            junit=to_junit,
            **({} if interrupted else {"svg": to_svg}),
        )

    def _print(self, text: str) -> None:
        """Print what is a result, at once also where it goes into a pipe."""
        self._output.words.print(text)

    def _say(self, text: str) -> None:
        """Print what happens, beside the results."""
        self._aside.print(text)


_STYLES = {"PASS": "good", "FAIL": "bad"}
_REMEDY = (
    "  - to cut fewer of them, or later: a longer drainDuration in Istio's mesh configuration,"
    " fewer steps, and clients that connect anew; watch --hold shows it in the cluster"
)


def _write_error(output: Output, error: ManifestError) -> None:
    """Write the documents that were asked for, which say what is wrong and where."""
    from trio_echo.prober.document import error_json  # noqa: PLC0415 - rarely needed
    from trio_echo.prober.junit import error_junit  # noqa: PLC0415 - the same

    output.write(
        json=lambda: error_json(str(error)),
        junit=lambda: error_junit(str(error), name="manifests", file=error.origin, line=error.line),
    )


def _title(target: Target) -> str:
    """A target in words: its listener, and its server names."""
    names = f", server name {', '.join(target.chain.sni)}" if target.chain.sni else ""
    return f"{target.listener.title}{names}"


def _dead(target: Target) -> str:
    """What becomes of new connections, where it is known that it is not what the weights say."""
    weighted = [each for each in target.chain.destinations if each.weight]
    if not any(each.cause for each in weighted):
        return ""
    every = not any(each.endpoints for each in weighted)
    return (
        f"; {'EVERY NEW CONNECTION FAILS' if every else 'new ones go another way'}: "
        + "; ".join(dict.fromkeys(each.cause for each in weighted if each.cause))
    )


def _in_words(numbers: Mapping[str, float]) -> str:
    """Names with their numbers, in a row."""
    return ", ".join(f"{name} {number:g}" for name, number in numbers.items())


def _parse_plane(name: str | None) -> Plane | None:
    """The data plane that ``--as`` names.

    Raises:
        ConfigError: there is no such data plane.
    """
    if name is not None and name not in PLANES:
        raise ConfigError("as", f"must be one of {', '.join(PLANES)}, got {name!r}")
    return PLANES[name] if name else None


def _loader(
    manifests: Sequence[str], weights: str | None, port: int | None, plane: Plane | None
) -> Callable[..., Plan]:
    """What reads the route; after an edit, with ``again=True``."""
    if not manifests:
        route = run_by(plane or DEFAULT, built_in(_parse_weights(weights or _BUILT_IN)))
        return partial(_only, Plan(route), port)
    if weights is not None:
        raise ConfigError("weights", "are for the built-in route; the manifests have their own")
    with interruptible():
        standard_input = sys.stdin.read() if "-" in manifests else ""

    def load(*, again: bool = False) -> Plan:
        plan = read_plan(
            manifests, parse_container, standard_input=standard_input, plane=plane, again=again
        )
        return _only(plan, port, again=again)

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


def _only(plan: Plan, port: int | None, *, again: bool = False) -> Plan:
    """Only what listens on a port; everything where none is given.

    Raises:
        ConfigError: nothing does, and it was not there before.
    """
    listeners = tuple(each for each in plan.route.listeners if port in {None, each.port})
    if not listeners and not again:
        raise ConfigError("port", f"nothing listens on {port}; what listens: {_places(plan)}")
    return replace(plan, route=replace(plan.route, listeners=listeners))


def _places(plan: Plan) -> str:
    """The listeners with their ports."""
    return ", ".join(f"{each.port} ({each.title})" for each in plan.route.listeners)


def _parse_weights(text: str) -> dict[str, int]:
    """Read ``one=80,two=20``.

    Raises:
        ConfigError: it is of another form, or a weight is no whole number.
    """
    weights = parse_expectation("weights", [text])
    if any(not each.is_integer() or not 0 <= each <= _MOST_WEIGHT for each in weights.values()):
        raise ConfigError("weights", f"must be whole numbers from 0, got {text!r}")
    if "" in weights or not any(weights.values()):
        raise ConfigError("weights", f"must have names, and one weight above 0, got {text!r}")
    return {name: int(weight) for name, weight in weights.items()}


def _parse_shift(text: str, plan: Plan) -> tuple[tuple[int, ...], ...]:
    """Read ``100/0,80/20``: sets of weights in the order of the route's destinations.

    Raises:
        ConfigError: it is of another form, or the route has not one split.
    """
    found = targets(plan.route)
    if len(found) != 1 or found[0].server_name is not None:
        places = ", ".join(f"{each.listener.port} ({each.listener.title})" for each in found)
        raise ConfigError("shift", f"walks one route without TLS; choose it by --port: {places}")
    destinations = found[0].chain.destinations
    if text == "rollout":
        return _rollout(plan, destinations)
    prefixes = plan.route.prefixes()
    order = [
        " or ".join(dict.fromkeys(prefixes[one.backend] for one in each.endpoints))
        or each.missing
        or each.name
        for each in found[0].chain.expected or destinations
    ]
    sets: list[tuple[int, ...]] = []
    for each in text.split(","):
        numbers = each.split("/")
        if not all(number.isascii() and number.isdigit() for number in numbers):
            raise ConfigError("shift", f"must be weights such as 100/0,80/20, got {text!r}")
        weights = tuple(map(int, numbers))
        if len(weights) != len(order) or not 0 < sum(weights) <= _MOST_WEIGHT:
            such = "/".join(["100", *["0"] * (len(order) - 1)])
            raise ConfigError(
                "shift",
                f"must have a weight for {' and for '.join(order)}, such as {such},"
                f" one of them above 0; got {each!r}",
            )
        sets.append(weights)
    return tuple(sets)


def _rollout(plan: Plan, destinations: Sequence[Destination]) -> tuple[tuple[int, ...], ...]:
    """The weights that a Rollout's steps set, from all to the stable pods to all to the canary's.

    Raises:
        ConfigError: no Rollout, or the route does not split between its two sets.
    """
    canary = [
        {endpoint.backend.rpartition(" ")[2] for endpoint in each.endpoints} == {"canary"}
        for each in destinations
    ]
    if plan.steps is None or sorted(canary) != [False, True]:
        raise ConfigError(
            "shift",
            "rollout needs a Rollout with a canary among the manifests, and a route that splits"
            " between its stable and its canary pods",
        )
    weights = list(dict.fromkeys((0, *plan.steps, _ALL)))
    return tuple(tuple(w if is_canary else _ALL - w for is_canary in canary) for w in weights)
