"""Whatever manifests say: a route that Envoy takes, or an error in words; never a traceback."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import trio
import yaml
from hypothesis import given
from hypothesis import strategies as st
from manifest_texts import GATEWAY_API, ISTIO, plan
from profiles import examples
from routes import configuration, together

from trio_echo.errors import ManifestError
from trio_echo.rehearsal.process import find_envoy, validate

if TYPE_CHECKING:
    from trio_echo.rehearsal.route import Route

BASES = [list(yaml.safe_load_all(ISTIO)), list(yaml.safe_load_all(GATEWAY_API))]

durations = st.sampled_from(["1s", "0s", "1h30m", "30ms", "1d", "", "9999999999h", "1e3s", ".5s"])
counts = st.integers(-1, 2**32)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of these fields."""
    return st.fixed_dictionaries({}, optional=fields)


def traffic_policies() -> st.SearchStrategy[dict[str, Any]]:
    """What a DestinationRule may say of connections."""
    return some(
        connectionPool=some(
            tcp=some(
                maxConnections=counts,
                connectTimeout=durations,
                idleTimeout=durations,
                maxConnectionDuration=durations,
                tcpKeepalive=some(probes=counts, time=durations, interval=durations),
            ),
            http=some(maxRetries=counts),
        ),
        outlierDetection=some(
            consecutive5xxErrors=counts,
            consecutiveGatewayErrors=counts,
            consecutiveLocalOriginFailures=counts,
            splitExternalLocalOriginErrors=st.booleans(),
            interval=durations,
            baseEjectionTime=durations,
            maxEjectionPercent=st.integers(-1, 101),
            minHealthPercent=st.integers(-1, 101),
        ),
        loadBalancer=some(simple=st.sampled_from(["RANDOM", "ROUND_ROBIN", "PASSTHROUGH"])),
        tls=some(mode=st.sampled_from(["DISABLE", "ISTIO_MUTUAL", "SIMPLE"])),
        portLevelSettings=st.lists(
            some(port=st.just({"number": 9000}), tls=st.just({})), max_size=1
        ),
    )


FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "weight": st.integers(-1, 2**32),
    "port": st.integers(0, 70_000) | st.just({"number": 9000}),
    "number": st.integers(0, 70_000),
    "name": st.sampled_from(["tcp-echo", "v1", "foo", ""]),
    "namespace": st.sampled_from(["default", "other"]),
    "subset": st.sampled_from(["v1", "v2", "v3"]),
    "host": st.sampled_from(["tcp-echo", "tcp-echo.default.svc.cluster.local", "*", "a.b.c"]),
    "hosts": st.lists(st.sampled_from(["*", "tcp-echo", "*.example.com", "x/y"]), max_size=2),
    "gateways": st.lists(st.sampled_from(["mesh", "tcp-echo-gateway", "none"]), max_size=2),
    "protocol": st.sampled_from(["TCP", "TLS", "HTTP", "UDP"]),
    "replicas": st.integers(-1, 60),
    "tls": st.sampled_from([{"mode": "PASSTHROUGH"}, {"mode": "Passthrough"}, [], {}]),
    "hostname": st.sampled_from(["a.example.com", "*.example.com", ""]),
    "sniHosts": st.lists(st.sampled_from(["a.example.com", "*", ""]), max_size=2),
    "match": st.lists(
        st.fixed_dictionaries({}, optional={"port": st.integers(0, 40_000)}), max_size=2
    ),
    "trafficPolicy": st.deferred(traffic_policies),
    "selector": st.dictionaries(st.sampled_from(["app", "version"]), st.just("tcp-echo")),
    "args": st.lists(st.sampled_from(["9000", "one", "--bogus", "--max-line", "", "-h"])),
    "env": st.lists(st.fixed_dictionaries({"name": st.just("TRIO_ECHO_MAX_LINE")})),
    "unheardOf": st.none() | st.booleans() | st.text(max_size=3),
}
"""Fields that the documents have somewhere, with values that may fit or not."""


@st.composite
def manifests(draw: st.DrawFn) -> str:
    """Manifests that were good, after a few edits anywhere in them."""
    documents = deepcopy(draw(st.sampled_from(BASES)))
    for _ in range(draw(st.integers(0, 4))):
        edit(draw, documents)
    return yaml.safe_dump_all(documents)


def edit(draw: st.DrawFn, documents: list[Any]) -> None:
    """Change, add or remove one thing somewhere."""
    places = [place for document in documents for place in mappings(document)]
    place = draw(st.sampled_from(places))
    present = [name for name in place if name in FIELDS] or list(FIELDS)
    name = draw(st.sampled_from(present) | st.sampled_from(sorted(FIELDS)))
    if name in place and draw(st.booleans()):
        del place[name]
    else:
        place[name] = draw(FIELDS[name])


def mappings(value: Any) -> list[dict[str, Any]]:
    """All the mappings in a value, itself included."""
    found = [value] if isinstance(value, dict) else []
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for each in inner:
        found += mappings(each)
    return found


@examples(0.06)
@given(st.lists(manifests(), min_size=6, max_size=12))
def test_any_manifest_ends_in_a_route_or_an_error(texts: list[str]) -> None:
    """Every route is one that Envoy takes; every error is one printable line at its place."""
    routes: list[Route] = []
    for text in texts:
        complaint = ""
        try:
            found = plan(text)
        except ManifestError as error:
            complaint = str(error)
        else:
            routes.append(found.route)
        assert not complaint or complaint.startswith(("1.yaml:", "no route "))
    if routes:
        assert trio.run(validate, find_envoy(), configuration(together(routes))) is None
