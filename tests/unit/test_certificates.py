"""Which certificates native engines are given."""

from pathlib import Path

import pytest

from aim_downloader.http_client.certificates import engine_certificates
from aim_downloader.http_client.network import Network


@pytest.fixture(autouse=True)
def _system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that keeps some certificates in a file, and some in a folder."""
    (tmp_path / "system.pem").write_text("of the system's file")
    folder = tmp_path / "system"
    folder.mkdir()
    (folder / "0a1b2c3d.0").write_text("of the system's folder")
    (folder / "README").write_text("no certificate")
    (folder / "4e5f6a7b.0").symlink_to("gone")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(folder))


def test_without_a_bundle_an_engine_looks_for_itself(tmp_path: Path) -> None:
    assert engine_certificates(Network("https://hub.test"), tmp_path) == {}


@pytest.mark.parametrize("folder", [False, True])
def test_a_bundle_is_trusted_beside_the_systems(tmp_path: Path, folder: bool) -> None:
    (tmp_path / "private").mkdir()
    certificate = tmp_path / "private" / "8c9d0e1f.0"
    certificate.write_text("of the bundle")
    bundle = certificate.parent if folder else certificate
    network = Network("https://hub.test", ca_bundle=str(bundle))
    given = engine_certificates(network, tmp_path)
    assert set(given) == {"SSL_CERT_FILE"}
    together = Path(given["SSL_CERT_FILE"]).read_text().splitlines()
    assert together == ["of the bundle", "of the system's file", "of the system's folder"]
