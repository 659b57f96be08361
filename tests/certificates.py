"""Certificates for tests: good ones and their authority, as files and as objects."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trustme

from trio_echo.server.config import TLSConfig

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Certificates:
    """A certificate for localhost, its key and its authority, on disk.

    Attributes:
        folder: where they are; more files can be written there.
        authority: issues more.
        issued: the certificate for localhost.
        cert: its file.
        key: its private key's file.
        ca: the authority's certificate file.
    """

    folder: Path
    authority: trustme.CA
    issued: trustme.LeafCert
    cert: Path
    key: Path
    ca: Path

    @classmethod
    def issue(cls, folder: Path) -> Certificates:
        """Make everything anew."""
        authority = trustme.CA()
        issued = authority.issue_cert("localhost")
        cert, key, ca = folder / "cert.pem", folder / "key.pem", folder / "ca.pem"
        issued.cert_chain_pems[0].write_to_path(cert)
        issued.private_key_pem.write_to_path(key)
        authority.cert_pem.write_to_path(ca)
        return cls(folder, authority, issued, cert, key, ca)

    def write(self, name: str, content: bytes) -> Path:
        """Write one more file."""
        path = self.folder / name
        path.write_bytes(content)
        return path

    def config(self, *, mutual: bool = False) -> TLSConfig:
        """Make a server's configuration; mutual asks for clients' certificates."""
        client_ca = self.ca if mutual else None
        return TLSConfig(ports=[0], cert=self.cert, key=self.key, client_ca=client_ca)

    def client_context(self, cert: trustme.LeafCert | None = None) -> ssl.SSLContext:
        """Make a client's context that trusts the authority, and may have a certificate."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        if cert is not None:
            cert.configure_cert(context)
        return context
