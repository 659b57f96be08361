"""Certificates for the backends that speak TLS: those of the cluster are not on this machine."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from trio_echo.rehearsal.errors import RehearsalError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["Authority"]


class Authority:
    """A throw-away authority, good for as long as its folder is there.

    Attributes:
        path: PEM file with its certificate, for clients to trust.
    """

    def __init__(self, folder: Path) -> None:
        """Make an authority that keeps its files in `folder`.

        Raises:
            RehearsalError: what it is made with is not installed.
        """
        try:
            import trustme  # noqa: PLC0415 - part of an extra, and slow to load
        except ImportError:
            raise RehearsalError(
                "backends with TLS need certificates to rehearse with;"
                " install what makes them with: pip install 'trio-echo[rehearse]'"
            ) from None
        self._authority = trustme.CA()
        self._folder = folder
        self.path = folder / "authority.pem"
        self._authority.cert_pem.write_to_path(str(self.path))

    def certificate(self, names: Iterable[str]) -> Path:
        """A PEM file with key and certificate for these server names."""
        wanted = sorted({"localhost", *names})
        path = self._folder / f"{sha256(' '.join(wanted).encode()).hexdigest()}.pem"
        if not path.exists():
            made = self._authority.issue_cert(*wanted)
            path.touch(mode=0o600)
            made.private_key_and_cert_chain_pem.write_to_path(str(path))
        return path
