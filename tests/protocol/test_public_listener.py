"""What the public listener does not serve, and how it is reached."""

import socket
import ssl
import warnings
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from authz_server.settings import SettingsError
from support.edge import ServerFixture

NOT_PUBLIC = (
    "/",
    "/metrics",
    "/health",
    "/health/live",
    "/health/ready",
    "/debug",
    "/console",
    "/admin",
    "/docs",
    "/redoc",
    "/swagger",
    "/version",
    "/static/x",
    "/.env",
    "/.git/config",
    "/authz-server.toml",
    "/server-status",
    "/?__debugger__=yes&cmd=resource&f=debugger.js",
    "/oauth2/token/../../etc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
)


@pytest.mark.parametrize("path", NOT_PUBLIC)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS"])
def test_nothing_for_operators_is_on_the_public_port(edge: ServerFixture, path: str, method: str):
    """Case I107."""
    answer = httpx.request(method, edge.server.base_url + path)
    assert answer.status_code in (404, 405)
    assert_tells_nothing(answer)


@pytest.mark.parametrize("path", ["/oauth2/token", "/.well-known/jwks.json", "/nowhere"])
def test_answers_name_no_software_and_no_version(edge: ServerFixture, path: str):
    """Case I107."""
    assert_tells_nothing(httpx.get(edge.server.base_url + path))
    assert_tells_nothing(httpx.post(edge.server.base_url + path, data={"a": "b"}))


def assert_tells_nothing(answer: httpx.Response) -> None:
    told = f"{answer.headers.get('server', '')} {answer.headers.get('x-powered-by', '')}".lower()
    for word in ("werkzeug", "flask", "python", "uvloop", "authz", "0.", "1.", "2.", "3."):
        assert word not in told
    body = answer.text.lower()
    for word in ("werkzeug", "flask", "traceback", "python", "site-packages", "debugger"):
        assert word not in body


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1, and its key."""
    directory = tmp_path_factory.mktemp("certificate")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1))
    builder = builder.not_valid_after(now + timedelta(days=1)).add_extension(
        alternative, critical=False
    )
    certificate = builder.sign(key, hashes.SHA256())
    (directory / "certificate.pem").write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
    )
    (directory / "key.pem").touch(0o600)
    (directory / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return directory


def handshake(port: int, version: ssl.TLSVersion) -> str | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    with socket.create_connection(("127.0.0.1", port), 5) as plain:
        try:
            with context.wrap_socket(plain) as connection:
                return connection.version()
        except (ssl.SSLError, ConnectionError):
            return None


def test_tls_begins_at_version_1_2(start_live_server, certificate):
    """Case I107."""
    table = {
        "tls_certificate": str(certificate / "certificate.pem"),
        "tls_private_key": str(certificate / "key.pem"),
    }
    server = start_live_server(server=table)
    versions = ssl.TLSVersion
    assert handshake(server.port, versions.TLSv1_3) == "TLSv1.3"
    assert handshake(server.port, versions.TLSv1_2) == "TLSv1.2"
    assert handshake(server.port, versions.TLSv1_1) is None
    assert handshake(server.port, versions.TLSv1) is None
    trust = ssl.create_default_context(cafile=str(certificate / "certificate.pem"))
    url = f"https://127.0.0.1:{server.port}/.well-known/oauth-authorization-server"
    assert httpx.get(url, verify=trust).status_code == 200
    with pytest.raises(httpx.TransportError):
        httpx.get(url.replace("https:", "http:"))


@pytest.mark.parametrize(
    "overrides",
    [
        {"issuer": "http://127.0.0.1:8080"},
        {"server": {"host": "0.0.0.0"}},
        {"server": {"host": "0.0.0.0", "trusted_proxies": ["0.0.0.0/0"]}},
        {"logging": {"level": "debug"}},
    ],
    ids=["http-issuer", "plain-listener", "everybody-trusted", "debug"],
)
def test_production_refuses_plain_transport_and_debugging(make_settings, overrides):
    """Case I107."""
    usual = {"environment": "production", "logging": {"level": "info"}}
    assert make_settings(**usual).environment == "production"
    with pytest.raises(SettingsError):
        make_settings(**usual | overrides)
