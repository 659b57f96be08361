"""Where the rehearsal differs from a recorded control plane and is left so, with reasons."""

DISAGREEMENTS: dict[str, str] = {
    "istio: a DestinationRule's idleTimeout": (
        "the same in Envoy, where the first destination's counts; compared for each destination"
    ),
    "gateway: Gateway without a pod that its selector fits": (
        "the pods of a gateway are seldom among the manifests; a note names the labels"
    ),
}
