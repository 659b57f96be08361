"""The rehearsal: a route of a cluster, on this machine, with a real Envoy.

Nothing is imported here: the pure modules can be loaded without trio.
"""
