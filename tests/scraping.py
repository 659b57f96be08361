"""Read a metrics page with the parser of the format that it says it is in."""

from __future__ import annotations

from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics_parser

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
TEXT = "text/plain; version=0.0.4"


def read_samples(page: bytes, content_type: str) -> dict[str, float]:
    """Parse a page; return its samples by name and labels, as in ``lines|port=1|tls=true``."""
    if content_type.startswith("application/openmetrics-text"):
        families = list(openmetrics_parser.text_string_to_metric_families(page.decode()))  # type: ignore[no-untyped-call]  # prometheus_client types this one parser not
    else:
        assert content_type.startswith("text/plain; version=")
        families = list(parser.text_string_to_metric_families(page.decode()))
    return {
        "|".join(
            [sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items()))]
        ): (sample.value)
        for family in families
        for sample in family.samples
    }
