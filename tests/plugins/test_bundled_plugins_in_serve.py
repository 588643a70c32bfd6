"""The bundled plugins together in the workers of `serve`, and their commands beside it."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from authz_server.settings import load_settings
from support.live_server import LiveServer, call_cli
from support.parties import Parties
from support.secrets_watch import SecretsWatch
from support.settings_file import write_secret, write_settings

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
RULE = '[[rules]]\nname = "it"\nclients = ["payer"]\n'


@pytest.fixture(scope="module")
def receiver():
    """An HTTP server that keeps what it gets, by path."""
    received = {"/v1/traces": [], "/hook": []}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received[self.path].append(body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.received, server.url = received, f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def site(receiver, module_database_url, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    for received in receiver.received.values():
        received.clear()
    write_secret(folder / "key", "a key of a receiver, long enough")
    (folder / "policy.toml").write_text(f'{RULE}effect = "narrow"\nlifetime_seconds = 60\n')
    settings = {
        "opentelemetry": {
            "endpoint": receiver.url,
            "signals": ["traces"],
            "interval_seconds": 1,
        },
        "claims_mapper": {"claims": {"scopes": "scopes"}},
        "policy": {"rules": str(folder / "policy.toml")},
        "webhooks": {
            "queue": str(folder / "webhooks.db"),
            "receivers": {
                "siem": {
                    "url": f"{receiver.url}/hook",
                    "events": ["client.*", "token.issued"],
                    "secret": {"file": "key"},
                }
            },
        },
    }

    def write(**overrides):
        overrides |= {
            "plugins": {"enabled": list(settings), "settings": settings},
            "outbound": {"plain_http": True},
        }
        return write_settings(folder, module_database_url, overrides)

    config = write()
    parties = Parties(load_settings(config), SecretsWatch())
    parties.create_first_keys()
    parties.make_resource_server("mapper")
    with LiveServer(write, folder, workers=2) as server:
        server.folder, server.config = folder, config
        server.payer = parties.make_client("payer")
        yield server


def ask(site, **headers):
    form = {"grant_type": "client_credentials", "scope": "mapper/link"} | site.payer.form()
    sent = site.payer.headers() | headers
    return httpx.post(f"{site.base_url}/oauth2/token", data=form, headers=sent, timeout=5)


def command(site, *arguments):
    """Run a command beside the server, which has to succeed; return what it prints."""
    done = call_cli("--config", str(site.config), *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def eventually(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def test_a_token_is_narrowed_mapped_traced_and_reported(site, receiver):
    def issued(**headers):
        # Busy machines: a refusal under load is answered 503.
        return eventually(lambda: (found := ask(site, **headers)).status_code == 200 and found)

    assert issued().json()["expires_in"] == 60
    for _ in range(10):
        issued(traceparent=f"00-{TRACE}-{PARENT}-01")

    def children():
        requests = map(ExportTraceServiceRequest.FromString, list(receiver.received["/v1/traces"]))
        return [
            (resource.resource, span)
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
            if span.trace_id.hex() == TRACE and not span.name.startswith("wait ")
        ]

    spans = eventually(lambda: len({span.span_id for _, span in children()}) >= 10 and children())
    assert {span.parent_span_id.hex() for _, span in spans} == {PARENT}

    def reported():
        found = [json.loads(body) for body in list(receiver.received["/hook"])]
        return [each for each in found if each["type"] == "token.issued"]

    eventually(lambda: len(reported()) >= 11)
    assert reported()[0]["data"]["client_id"] == "payer"


def test_a_command_s_change_is_delivered_by_the_server(site, receiver):
    before = len(receiver.received["/hook"])
    command(site, "client", "disable", "payer")
    command(site, "client", "enable", "payer")
    eventually(
        lambda: [
            body
            for body in receiver.received["/hook"][before:]
            if b"client.disabled" in body or b"client.enabled" in body
        ][1:]
    )
    assert command(site, "webhooks", "list") == "No event waits.\n"


def test_a_changed_policy_is_checked_and_replayed_by_a_command(site):
    changed = site.folder / "changed.toml"
    changed.write_text(f'{RULE}effect = "refuse"\n')
    assert "1 rules" in command(site, "policy", "check", str(changed))
    eventually(lambda: ask(site).status_code == 200)
    found = json.loads(command(site, "policy", "replay", str(changed), "--json"))
    (difference,) = found["differences"]
    assert (difference["client_id"], difference["would_be"]) == ("payer", "refused")
    assert difference["count"] == found["requests"] >= 1
    assert "issued -> refused" in command(site, "policy", "replay", str(changed), "--days", "1")
