"""The counters add up, whatever is open, and both formats of a scrape say so."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scraping import OPENMETRICS, TEXT, read_samples

from trio_echo.errors import ConfigError
from trio_echo.framing import encode_prefix
from trio_echo.server.admin import Exposition, render
from trio_echo.server.metrics import REASONS, Metrics, Reason


@dataclass(eq=False, slots=True)
class Connection:
    """A connection as the metrics see it."""

    lines: int = 0
    received: int = 0
    sent: int = 0


def scrape(metrics: Metrics, prefix: str = "one", accept: str = TEXT) -> dict[str, float]:
    """Render the page and return its samples."""
    return read_samples(*render(Exposition(metrics, prefix), accept))


def is_prefix(text: str) -> bool:
    """Whether the server takes this prefix."""
    try:
        encode_prefix(text)
    except ConfigError:
        return False
    return True


amounts = st.integers(min_value=0, max_value=2**50)
connections = st.builds(Connection, amounts, amounts, amounts)


@given(
    st.lists(
        st.tuples(connections, st.booleans(), st.none() | st.sampled_from(REASONS)), max_size=20
    )
)
def test_totals_are_the_sum_of_all_connections_open_or_ended(
    drawn: list[tuple[Connection, bool, Reason | None]],
) -> None:
    """No count is lost or doubled when a connection ends."""
    metrics = Metrics()
    metrics.listening(9000, False)
    metrics.listening(9443, True)
    for connection, tls, reason in drawn:
        metrics.opened(9443 if tls else 9000, tls, connection)
        if reason is not None:
            metrics.closed(connection, reason)

    samples = scrape(metrics)

    assert metrics.connections == len(drawn)
    assert metrics.accepted[9443, True] == sum(tls for _, tls, _ in drawn)
    assert metrics.open == sum(reason is None for _, _, reason in drawn)
    assert metrics.lines == sum(connection.lines for connection, _, _ in drawn)
    assert metrics.received_bytes == sum(connection.received for connection, _, _ in drawn)
    assert metrics.sent_bytes == sum(connection.sent for connection, _, _ in drawn)
    assert samples["trio_echo_lines_total"] == metrics.lines
    assert samples["trio_echo_received_bytes_total"] == metrics.received_bytes
    assert samples["trio_echo_sent_bytes_total"] == metrics.sent_bytes
    assert samples["trio_echo_connections_open"] == metrics.open
    for reason in REASONS:
        ended = sum(1 for _, _, drawn_reason in drawn if drawn_reason == reason)
        assert samples[f"trio_echo_connections_closed_total|reason={reason}"] == ended


@given(st.text(max_size=60).filter(is_prefix), st.sampled_from([TEXT, OPENMETRICS]))
@example('\\"{},=\u2028\u202e\N{SNOWMAN}', TEXT)
@example('\\"{},=\u2028\u202e\N{SNOWMAN}', OPENMETRICS)
def test_any_prefix_is_a_label(prefix: str, accept: str) -> None:
    """Quotes, backslashes and every script come back from both parsers as they were."""
    (info,) = (name for name in scrape(Metrics(), prefix, accept) if "trio_echo_info" in name)
    assert f"|prefix={prefix}|version=" in info


@pytest.mark.parametrize("accept", [TEXT, OPENMETRICS])
def test_every_series_is_there_before_the_first_connection(accept: str) -> None:
    """A rate over time sees the first increment only if the zero was there."""
    metrics = Metrics()
    metrics.listening(9000, False)
    metrics.listening(9443, True)

    samples = scrape(metrics, accept=accept)

    zeros = {name for name, value in samples.items() if value == 0}
    assert zeros == {
        "trio_echo_connections_total|port=9000|tls=false",
        "trio_echo_connections_total|port=9443|tls=true",
        "trio_echo_connections_open",
        "trio_echo_lines_total",
        "trio_echo_received_bytes_total",
        "trio_echo_sent_bytes_total",
        *(f"trio_echo_connections_closed_total|reason={reason}" for reason in REASONS),
    }


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        (
            # What Prometheus 3 sends.
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
                "application/openmetrics-text;version=0.0.1;q=0.5,"
                "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
                "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
            ),
            "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8",
        ),
        ("application/openmetrics-text;version=one", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
def test_the_scraper_chooses_the_format(accept: str, content_type: str) -> None:
    """Negotiation ends with a format in every case, also for nonsense."""
    assert render(Exposition(Metrics(), "one"), accept)[1] == content_type


@given(st.text(st.characters(max_codepoint=255), max_size=80))
@example("text/plain;version=1.x.3")
@example("text/plain;=;version")
def test_no_accept_header_is_an_error(accept: str) -> None:
    """Whatever a client sends there, it gets a page."""
    assert render(Exposition(Metrics(), "one"), accept)[0].startswith(b"# HELP trio_echo")
