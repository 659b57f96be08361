"""What an Envoy was configured to do, from its config dump: chains, weights, policies. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

UNLIMITED = 4294967295
TCP_PROXY = "envoy.filters.network.tcp_proxy"


MATCHES = {
    "server_names": "sni",
    "application_protocols": "application protocols",
    "prefix_ranges": "to",
    "source_prefix_ranges": "from",
}


def reduce_dump(dump: Mapping[str, Any], names: Mapping[str, str], own: set[int]) -> dict[str, Any]:
    """Listeners with their chains, and the clusters that these lead to.

    Args:
        dump: The page ``/config_dump?include_eds``.
        names: What to write in place of addresses.
        own: The ports of listeners that are not of the route.
    """
    sections = {section["@type"].rsplit(".", 1)[-1]: section for section in dump["configs"]}
    listeners = []
    wanted: set[str] = set()
    for entry in sections["ListenersConfigDump"].get("dynamic_listeners", []):
        state = entry.get("active_state")
        if state is None:
            continue
        listener = _listener(state["listener"], names, wanted)
        if listener is not None and listener["port"] not in own:
            listeners.append(listener)
    endpoints = _endpoints(sections.get("EndpointsConfigDump", {}), names)
    clusters = {}
    for entry in sections["ClustersConfigDump"].get("dynamic_active_clusters", []):
        cluster = entry["cluster"]
        if cluster["name"] in wanted:
            clusters[cluster["name"]] = _cluster(cluster, endpoints, names)
    refused = [
        entry["error_state"]["details"]
        for section in sections.values()
        for key in ("dynamic_listeners", "dynamic_active_clusters")
        for entry in section.get(key, [])
        if entry.get("error_state")
    ]
    listeners.sort(key=lambda each: (each["port"], each["address"]))
    found: dict[str, Any] = {"listeners": listeners, "clusters": dict(sorted(clusters.items()))}
    if refused:
        found["refused by Envoy"] = refused
    missing = sorted(wanted - clusters.keys())
    if missing:
        found["missing clusters"] = missing
    return found


def _listener(
    listener: Mapping[str, Any], names: Mapping[str, str], wanted: set[str]
) -> dict[str, Any] | None:
    address = listener["address"].get("socket_address")
    if address is None:
        return None
    chains = [_chain(chain, wanted) for chain in listener.get("filter_chains", [])]
    found = {
        "address": names.get(address["address"], address["address"]),
        "port": address["port_value"],
        "chains": chains,
    }
    if limit := listener.get("per_connection_buffer_limit_bytes"):
        found["buffer"] = limit
    if "default_filter_chain" in listener:
        found["default"] = _chain(listener["default_filter_chain"], wanted)
    return found


def _chain(chain: Mapping[str, Any], wanted: set[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    match = chain.get("filter_chain_match", {})
    for field, value in match.items():
        ranges = field.endswith("prefix_ranges")
        found[MATCHES.get(field, field)] = (
            [f"{each['address_prefix']}/{each.get('prefix_len', 0)}" for each in value]
            if ranges
            else value
        )
    others = []
    for each in chain.get("filters", []):
        if each["name"] == TCP_PROXY:
            found.update(_tcp_proxy(each["typed_config"], wanted))
        else:
            others.append(each["name"].removeprefix("envoy.filters.network."))
    if others:
        found["filters"] = others
    if "transport_socket" in chain:
        found["tls"] = "terminated"
    return found


def _tcp_proxy(proxy: Mapping[str, Any], wanted: set[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    weighted = proxy.get("weighted_clusters", {}).get("clusters")
    if weighted:
        found["weights"] = [[each["name"], each["weight"]] for each in weighted]
    elif "cluster" in proxy:
        found["weights"] = [[proxy["cluster"], 100]]
    wanted |= {name for name, _ in found.get("weights", [])}
    for name, field in (
        ("idle timeout", "idle_timeout"),
        ("duration", "max_downstream_connection_duration"),
    ):
        if field in proxy:
            found[name] = proxy[field]
    if "hash_policy" in proxy:
        found["hash"] = [kind for each in proxy["hash_policy"] for kind in each]
    return found


def _cluster(
    cluster: Mapping[str, Any],
    endpoints: Mapping[str, list[dict[str, Any]]],
    names: Mapping[str, str],
) -> dict[str, Any]:
    found: dict[str, Any] = {"type": cluster.get("type", "CUSTOM")}
    if timeout := cluster.get("connect_timeout"):
        found["connect timeout"] = timeout
    if policy := cluster.get("lb_policy"):
        found["balancer"] = policy
    if policy := cluster.get("load_balancing_policy"):
        found["balancer"] = _policy(policy)
    for threshold in cluster.get("circuit_breakers", {}).get("thresholds", []):
        limits = {
            name: threshold[name]
            for name in ("max_connections", "max_pending_requests")
            if threshold.get(name, UNLIMITED) != UNLIMITED
        }
        if limits:
            found["limits"] = limits
    if outlier := cluster.get("outlier_detection"):
        found["outliers"] = {key: value for key, value in outlier.items() if value}
    if keepalive := cluster.get("upstream_connection_options", {}).get("tcp_keepalive"):
        found["keepalive"] = keepalive
    sockets = [cluster["transport_socket"]] if "transport_socket" in cluster else []
    sockets += [each["transport_socket"] for each in cluster.get("transport_socket_matches", [])]
    kinds = sorted({each["name"].rsplit(".", 1)[-1] for each in sockets})
    if kinds:
        found["transport"] = kinds
    found["endpoints"] = _reached(cluster, endpoints, names)
    return found


def _reached(
    cluster: Mapping[str, Any],
    endpoints: Mapping[str, list[dict[str, Any]]],
    names: Mapping[str, str],
) -> list[dict[str, Any]]:
    if cluster.get("type") == "ORIGINAL_DST":
        return []  # those that were met so far: where a client wanted to go
    if "load_assignment" in cluster:
        return _localities(cluster["load_assignment"], names)
    service = cluster.get("eds_cluster_config", {}).get("service_name", cluster["name"])
    return endpoints.get(service, [])


def _policy(policy: Mapping[str, Any]) -> Any:
    return [
        each["typed_extension_config"]["typed_config"]["@type"].rsplit(".", 1)[-1]
        for each in policy["policies"]
    ]


def _endpoints(
    section: Mapping[str, Any], names: Mapping[str, str]
) -> dict[str, list[dict[str, Any]]]:
    found = {}
    for kind in ("dynamic_endpoint_configs", "static_endpoint_configs"):
        for entry in section.get(kind, []):
            config = entry["endpoint_config"]
            found[config.get("cluster_name", "")] = _localities(config, names)
    return found


def _localities(assignment: Mapping[str, Any], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Each locality with its endpoints, by name: how many of each, and the port."""
    found = []
    for locality in assignment.get("endpoints", []):
        who: Counter[str] = Counter()
        for each in locality.get("lb_endpoints", []):
            address = each["endpoint"]["address"].get("socket_address")
            if address is None:
                who["internal"] += 1
            else:
                host = names.get(address["address"], address["address"])
                who[f"{host}:{address['port_value']}"] += 1
        entry: dict[str, Any] = {"who": dict(sorted(who.items()))}
        if "load_balancing_weight" in locality:
            entry["weight"] = locality["load_balancing_weight"]
        if locality.get("priority"):
            entry["priority"] = locality["priority"]
        found.append(entry)
    return sorted(found, key=lambda each: sorted(each["who"]))
