"""The backend: a TCP server whose answers name the version that gave them."""

from __future__ import annotations

from trio_echo.server.config import ServerConfig, TLSConfig
from trio_echo.server.service import Server, serve

__all__ = ["Server", "ServerConfig", "TLSConfig", "serve"]
