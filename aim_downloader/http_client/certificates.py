"""Certificates for native engines: these know SSL_CERT_FILE alone, which replaces all others."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

from aim_downloader.http_client.network import Network
from aim_downloader.storage import storage_errors

# How OpenSSL looks for certificates in a folder: by a hash of their subject.
_HASHED = "*.[0-9]"


def engine_certificates(network: Network, folder: Path) -> dict[str, str]:
    """Variables by which an engine trusts whom this program does, and a file for it in ``folder``.

    None are needed where nobody names more certificates than the system's.

    Raises:
        StorageError: a certificate cannot be read, or the file not be written.
    """
    if not network.ca_bundle:
        return {}
    known = ssl.get_default_verify_paths()
    places = [Path(place) for place in (network.ca_bundle, known.cafile, known.capath) if place]
    together = (folder / "certificates.pem").absolute()
    with storage_errors(together):
        together.write_bytes(b"\n".join(one for place in places for one in _read(place)))
    return {"SSL_CERT_FILE": str(together)}


def _read(place: Path) -> Iterator[bytes]:
    """The certificates of a file, or of a folder."""
    files = sorted(place.glob(_HASHED)) if place.is_dir() else [place]
    # A system's folder may hold links that lead nowhere.
    return (file.read_bytes() for file in files if file.is_file())
