"""Where the rehearsal differs from a recorded control plane and is left so, with reasons."""

DISAGREEMENTS: dict[str, str] = {
    "mesh: in the mesh, gateways names a Gateway only": (
        "no route of the mesh is left to rehearse, and it says so"
    ),
    "mesh: in the mesh, no VirtualService": (
        "no route of the mesh is left to rehearse, and it says so"
    ),
    "mesh: in the mesh, a match of the port": (
        "a port of the mesh that no route holds has no listener in the rehearsal"
    ),
    "mesh: in the mesh, a match of another port": (
        "a port of the mesh that no route holds has no listener in the rehearsal"
    ),
    "mesh: in the mesh, port named http": (
        "a port of the mesh that no route holds has no listener in the rehearsal"
    ),
    "mesh: in the mesh, appProtocol http": (
        "a port of the mesh that no route holds has no listener in the rehearsal"
    ),
    "mesh: in the mesh, port named grpc": (
        "a port of the mesh that no route holds has no listener in the rehearsal"
    ),
    "mesh: in the mesh, sourceLabels of the client": (
        "depends on the client, who is not among the manifests: refused by name"
    ),
    "mesh: in the mesh, sourceLabels of another client": (
        "depends on the client, who is not among the manifests: refused by name"
    ),
    "mesh: in the mesh, sourceNamespace of the client": (
        "depends on the client, who is not among the manifests: refused by name"
    ),
    "mesh: in the mesh, sourceNamespace of another": (
        "depends on the client, who is not among the manifests: refused by name"
    ),
    "mesh: in the mesh, destinationSubnets elsewhere": (
        "depends on the client, who is not among the manifests: refused by name"
    ),
    "mesh: in the mesh, VirtualService of another namespace kept to itself": (
        "the client is taken to be in the route's own namespace"
    ),
    "mesh: in the mesh, DestinationRule with a workloadSelector that fits the client": (
        "the clients' labels are not among the manifests"
    ),
    "mesh: in the mesh, a headless Service": (
        "each of its pods has an address of its own in the mesh"
    ),
    "mesh: in the mesh, a Sidecar that lets nothing out": ("a Sidecar is passed over, with a note"),
    "gateway: Gateway without a pod that its selector fits": (
        "the pods of a gateway are seldom among the manifests; a note names the labels"
    ),
}
