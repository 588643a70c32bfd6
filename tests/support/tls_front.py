"""nginx and HAProxy as deploy/ configures them for clients with certificates."""

import ssl
from collections.abc import Sequence
from pathlib import Path

from support.client_certificates import ClientKey
from support.openbao_authority import CertificateAuthority
from support.reverse_proxy import ReverseProxy
from support.source_tree import ROOT

FRONTS = {
    "nginx": ROOT / "deploy" / "nginx" / "client-certificates.conf",
    "haproxy": ROOT / "deploy" / "haproxy" / "client-certificates.cfg",
}


class TlsFront(ReverseProxy):
    """A proxy with TLS in front of ``127.0.0.1:backend_port``. A context manager.

    Args:
        kind: ``nginx`` or ``haproxy``.
        backend_port: where the server listens.
        directory: for its files and its log.
        authorities: PEM of the authorities that issue certificates to clients.
    """

    def __init__(self, kind: str, backend_port: int, directory: Path, authorities: bytes) -> None:
        self._authority = CertificateAuthority(directory)
        self._own = self._authority.certify("localhost")
        self._authorities = directory / "client-authorities.pem"
        self._authorities.write_bytes(authorities)
        self._joined = directory / "own.pem"
        self._joined.touch(0o600)
        certificate, key = self._own
        self._joined.write_bytes(key.read_bytes() + certificate.read_bytes())
        super().__init__(kind, backend_port, directory)
        self.base_url = f"https://127.0.0.1:{self.port}"

    def context(self, client: ClientKey | None, directory: Path) -> ssl.SSLContext:
        """Return the context of a client that trusts the front, with or without certificate."""
        return client_context(self._authority.certificate_path, client, directory)

    def _find_block(self, kind: str) -> str:
        return FRONTS[kind].read_text(encoding="utf-8")

    def _find_places(self, kind: str, backend_port: int) -> Sequence[tuple[str, str]]:
        if kind == "nginx":
            certificate, key = self._own
            return (
                ("listen 443 ssl;", f"listen 127.0.0.1:{self.port} ssl;"),
                ("server 127.0.0.1:8080;", f"server 127.0.0.1:{backend_port};"),
                ("/etc/nginx/auth.example.org.pem", str(certificate)),
                ("/etc/nginx/auth.example.org.key", str(key)),
                ("/etc/nginx/client-authorities.pem", str(self._authorities)),
            )
        return (
            ("bind :443", f"bind 127.0.0.1:{self.port}"),
            ("/etc/haproxy/auth.example.org.pem", str(self._joined)),
            ("/etc/haproxy/client-authorities.pem", str(self._authorities)),
            ("127.0.0.1:8080 check port 8081", f"127.0.0.1:{backend_port}"),
        )


def client_context(authority: Path, client: ClientKey | None, directory: Path) -> ssl.SSLContext:
    """Return a client's TLS context.

    Args:
        authority: the certificate of the server's authority.
        client: the client's certificate; None for none.
        directory: for its file.
    """
    context = ssl.create_default_context(cafile=str(authority))
    if client is not None:
        context.load_cert_chain(
            client.write(directory, f"client-{client.certificate.serial_number}")
        )
    return context
