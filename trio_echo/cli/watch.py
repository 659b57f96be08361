"""``trio-echo watch``: one target, for ever."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from json import dumps
from typing import TYPE_CHECKING, Annotated

import trio
import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from trio_echo.cli.listening import as_trio, listen_on, parse_listen, url_of
from trio_echo.cli.options import (
    EFFORT,
    RESULTS,
    CertOption,
    ExpectOption,
    IdentifyCertOption,
    IdentifyOption,
    KeyOption,
    MarginOption,
    PNGOption,
    ProxyOption,
    SendOption,
    SNIOption,
    SourceOption,
    SVGOption,
    TimeoutOption,
    TLSCAOption,
    TLSOption,
    ToleranceOption,
    option,
)
from trio_echo.cli.output import ExitCode, Output
from trio_echo.cli.probe import dialogue_settings, tls_settings
from trio_echo.cli.signals import expect as expect_signals
from trio_echo.cli.signals import received
from trio_echo.monitor.record import lasting, stamp
from trio_echo.monitor.watch import DEFAULT_RATE, Watch, WatchConfig
from trio_echo.prober.config import ProbeConfig, parse_expectation
from trio_echo.prober.remarks import percent, shown_name, span
from trio_echo.text import printable, visible

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from trio_echo.cli.output import Lines
    from trio_echo.monitor.record import Event, Moment, Record, Share
    from trio_echo.server.listeners import Listener

__all__ = ["Watching", "view", "watch"]

_PAGE = "The page"

_REDRAW = 0.5
"""Seconds between two pictures on a terminal."""

_SAY = 60.0
"""Seconds between two lines elsewhere."""

_MOST = 16
"""Backends that a terminal shows."""


def watch(
    target: Annotated[str, typer.Argument(metavar="HOST:PORT", help="What to watch.")],
    *,
    expect: ExpectOption = None,
    rate: Annotated[float, option(EFFORT, "N", "Start N connections per second.")] = DEFAULT_RATE,
    duration: Annotated[
        float | None, option(EFFORT, "SECONDS", "End after this time. [default: never]")
    ] = None,
    hold: Annotated[
        int,
        option(EFFORT, "N", "Hold N connections open, talk over them, and say which are lost."),
    ] = 0,
    until_change: Annotated[
        bool,
        option(
            EFFORT,
            None,
            "End at the first change of the split, or once many connections fail for long.",
            "--until-change",
        ),
    ] = False,
    listen: Annotated[
        str | None,
        option(_PAGE, "[HOST:]PORT", "Serve a live page at / and metrics at /metrics here."),
    ] = None,
    margin: MarginOption = None,
    tolerance: ToleranceOption = 0.0,
    timeout: TimeoutOption = 5.0,
    source_address: SourceOption = None,
    send: SendOption = None,
    identify: IdentifyOption = None,
    identify_cert: IdentifyCertOption = None,
    proxy_protocol: ProxyOption = None,
    tls: TLSOption = False,
    tls_ca: TLSCAOption = None,
    sni: SNIOption = None,
    tls_cert: CertOption = None,
    tls_key: KeyOption = None,
    json: Annotated[
        str | None,
        option(RESULTS, "FILE", "Write events and figures, one JSON object a line; - for stdout."),
    ] = None,
    svg: SVGOption = None,
    png: PNGOption = None,
) -> None:
    """Probe slowly and for ever, and say when the split changes.

    It ends with a signal, after --duration or, with --until-change, at the first
    change. A false alarm comes once in a million connections on average, at most.
    Without --expect, the first thousand connections show what to expect. --json
    writes one object a line: the start, each event, each minute, and the end.

    Exit code: 0 no change, 1 the split changed or a part of the connections failed
    for long, 2 usage, 4 nobody ever answered or an output could not be written.

    Examples:
    trio-echo watch localhost:31400 --expect one=80,two=20
    trio-echo watch localhost:31400 --hold 20 --listen 8080
    """
    config = WatchConfig(
        probe=ProbeConfig(
            target=target,
            expect=parse_expectation("expect", expect or ()),
            margin=margin,
            tolerance=tolerance,
            timeout=timeout,
            source_addresses=source_address or (),
            tls=tls_settings(tls, tls_ca, sni, tls_cert, tls_key),
            **dialogue_settings(send, identify, identify_cert, proxy_protocol),
        ),
        rate=rate,
        duration=duration,
        hold=hold,
        until_change=until_change,
    )
    place = None if listen is None else parse_listen(listen)
    output = Output(json=json, svg=svg, png=png)
    expect_signals()  # a signal is the usual end
    record = trio.run(Watching(config, place, output).run)

    def to_svg() -> str:
        from trio_echo.monitor.picture import to_svg  # noqa: PLC0415 - takes its time

        return to_svg(record)

    output.write(svg=to_svg)
    output.words.print(record.headline)
    output.words.print(f"  {record}")
    code = ExitCode.FAIL if record.changes or record.outages else ExitCode.PASS
    raise typer.Exit(output.end(code if record.counts.answers else ExitCode.UNMEASURED))


@dataclass
class Watching:
    """One run of the command.

    Attributes:
        config: what to watch.
        place: where to serve the page, or None.
        output: where words and documents go.
    """

    config: WatchConfig
    place: tuple[str, int] | None
    output: Output
    _lines: Lines | None = None
    _console: Console | None = None
    _stop: Callable[[], None] = lambda: None

    async def run(self) -> Record:
        """Watch, with everything around it, until it ends by itself or by a signal.

        Raises:
            ConfigError: an address cannot be listened on, or a TLS file not be used.
        """
        words = self.output.words
        if words.terminal:
            self._console = Console(file=words.file)
        watching = Watch(self.config, self._tell)
        self._stop = watching.stop
        listeners = await self._listen()
        self._lines = self.output.lines()
        self._write({"kind": "start", **self._settings()})
        with received() as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_stop_on_signal, signals, watching)
                nursery.start_soon(self._draw if self._console else self._say, watching)
                nursery.start_soon(self._each_minute, watching)
                if listeners:
                    nursery.start_soon(self._serve, watching, listeners)
                await watching.run()
                nursery.cancel_scope.cancel()
        self._write({"kind": "end", **watching.record.to_json()})
        if self._lines is not None:
            self._lines.close()
        return watching.record

    def _settings(self) -> dict[str, object]:
        """What is watched, for machines."""
        probe = self.config.probe
        return {
            "at": stamp(datetime.now(UTC)),
            "target": probe.target,
            "expect": dict(probe.expect),
            "margin": probe.expectation.margin,
            "tolerance": probe.tolerance,
            "rate": self.config.rate,
            "hold": self.config.hold,
            "asked": probe.asked,
        }

    async def _listen(self) -> list[Listener]:
        """Open the port of the page, and say where it is."""
        if self.place is None:
            return []
        listeners = await listen_on(self.place)
        for listener in listeners:
            self.output.words.print(f"page and metrics on {url_of(listener)}")
        return listeners

    async def _serve(self, watching: Watch, listeners: Sequence[Listener]) -> None:
        """Serve the page until cancelled."""
        from trio_echo.monitor.exposition import watch_front  # noqa: PLC0415 - takes its time

        await watch_front(watching.record).serve(map(as_trio, listeners))

    def _tell(self, event: Event) -> None:
        """Say an event."""
        if self._console is not None:
            self._show(self._console, event)
        else:
            self._print(_line(event))
        self._write(event.to_json())

    def _show(self, console: Console, event: Event) -> None:
        """Print an event above the live picture, where it stays."""
        console.print(Text(visible(_line(event)), style=_EVENT_STYLES.get(event.kind, "")))

    def _print(self, line: str) -> None:
        """Print a line; end the watch once nobody reads any more."""
        self.output.words.print(line)
        if self.output.words.failure is not None:
            self._stop()

    def _write(self, value: dict[str, object]) -> None:
        """Write an object, if somebody asked for them; end the watch if that fails."""
        if self._lines is not None:
            self._lines.write(dumps(value, allow_nan=False))
            if self._lines.failed:
                self._stop()

    async def _each_minute(self, watching: Watch) -> None:
        """Write where things stand for machines."""
        while True:
            await trio.sleep(_SAY)
            self._write({"kind": "status", **watching.record.to_json()})

    async def _say(self, watching: Watch) -> None:
        """Print where things stand now and then."""
        self._print(f"watching {printable(self.config.probe.target)}")
        while True:
            await trio.sleep(_SAY)
            self._print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {watching.record}")

    async def _draw(self, watching: Watch) -> None:
        """Redraw the picture in place, below the events. No thread: this task does it."""
        console = self._console
        assert console is not None  # noqa: S101 - started only with one
        with Live(console=console, auto_refresh=False, transient=True) as live:
            size = console.size
            while True:
                if console.size != size:
                    # Nobody knows how the terminal has broken the lines that stood there.
                    size = console.size
                    console.clear()
                    for event in [*watching.record.events][-size.height // 2 :]:
                        self._show(console, event)
                ascii_only = console.options.ascii_only
                live.update(
                    view(watching, console.width, ascii_only=ascii_only),
                    refresh=True,
                )
                await trio.sleep(_REDRAW)


def _line(event: Event) -> str:
    """An event with its time."""
    return f"{event.at:%Y-%m-%d %H:%M:%S} {event.text}"


async def _stop_on_signal(signals: AsyncIterator[int], watching: Watch) -> None:
    """End the watch at the first signal."""
    async for _ in signals:
        watching.stop()


_EVENT_STYLES = {
    "change": "bold red",
    "lost": "yellow",
    "failed": "yellow",
    "failing": "bold red",
    "answering": "green",
}


def view(watching: Watch, width: int, *, ascii_only: bool) -> Group:
    """Where things stand, as a terminal shows it.

    Args:
        watching: the running watch.
        width: of the terminal, in characters.
        ascii_only: whether it shows nothing else.
    """
    record = watching.record
    shares = record.shares[:_MOST]
    moments = list(record.recent)
    stretch = moments[-1].elapsed - moments[0].elapsed if moments else 0.0
    names = max([7, *(min(20, len(shown_name(share.name))) for share in shares)])
    cells = max(8, width - names - 46)
    table = Table.grid(padding=(0, 1))
    for justify in ("left", "left", "right", "right", "right"):
        table.add_column(justify=justify, no_wrap=True)
    over = f"last {lasting(stretch)}"
    table.add_row("", over[:cells], "share", "expected", "true share", style="dim")
    for share in shares:
        within = share.band is None or share.band.low <= share.share <= share.band.high
        expected = ""
        if share.expected is not None:
            expected = f"{percent(share.expected)} ±{100 * record.expectation.margin:.3g}"
        table.add_row(
            Text(shown_name(share.name)[:20], style="bold"),
            spark(moments, share, cells, ascii_only=ascii_only),
            Text(percent(share.share), style="" if within else "bold red"),
            Text(expected),
            Text(span(share.interval), style="dim"),
        )
    counts = record.counts
    spent = (
        f"{counts.total} connections in {lasting(record.elapsed)}, "
        f"{counts.errors} failed, {record.changes} change{'s' * (record.changes != 1)}"
    )
    if watching.config.hold:
        spent += f"; {record.held} of {watching.config.hold} held, {record.lost.total()} lost"
    style = {"PASS": "bold green", "FAIL": "bold red"}.get(record.verdict, "bold")
    return Group(Text(visible(record.headline), style=style), table, Text(spent, style="dim"))


_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII_BLOCKS = "_.-~=+*#"


def spark(moments: Sequence[Moment], share: Share, cells: int, *, ascii_only: bool) -> Text:
    """One backend's share over time, a character for each stretch of it; red outside its band.

    The height reaches over twice the margin to either side, so that the band
    takes up the middle half of it; over everything where nothing is expected.
    """
    low, high = 0.0, 1.0
    if share.band is not None and share.expected is not None:
        low, high = (2 * edge - share.expected for edge in share.band)
    blocks = _ASCII_BLOCKS if ascii_only else _BLOCKS
    drawn = Text()
    shown = [moment for moment in moments if moment.shares or moment.failed]
    for cell in range(min(cells, len(shown))):
        start = cell * len(shown) // min(cells, len(shown))
        end = (cell + 1) * len(shown) // min(cells, len(shown))
        part = shown[start:end]
        mean = sum(moment.shares.get(share.name, 0.0) for moment in part) / len(part)
        height = (mean - low) / (high - low)
        outside = share.band is not None and not share.band.low <= mean <= share.band.high
        block = blocks[max(0, min(len(blocks) - 1, int(height * len(blocks))))]
        drawn.append(block, style="red" if outside else "cyan")
    return drawn
