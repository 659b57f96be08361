"""The backend: a TCP server whose answers name the version that gave them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio_echo import load_from

if TYPE_CHECKING:
    from trio_echo.server.config import ServerConfig, TLSConfig
    from trio_echo.server.service import Server, serve

__all__ = ["Server", "ServerConfig", "TLSConfig", "serve"]

__getattr__ = load_from(
    __name__,
    {
        "Server": "trio_echo.server.service",
        "ServerConfig": "trio_echo.server.config",
        "TLSConfig": "trio_echo.server.config",
        "serve": "trio_echo.server.service",
    },
)
