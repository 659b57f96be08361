"""The backend: a TCP server whose answers name the version that gave them."""
