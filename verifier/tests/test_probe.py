"""The probe: against an API with the kit, and against one that accepts everything."""

import json
import threading
from wsgiref.simple_server import WSGIRequestHandler, make_server
from xml.etree.ElementTree import fromstring

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from authz_verifier import Verifier
from authz_verifier.cli import main
from authz_verifier.signing import SigningKey
from authz_verifier.testing import DEFAULT_AUDIENCE
from authz_verifier.wsgi import requires

SCOPE = "mapper/link"


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


def application(_environ, start):
    start("200 OK", [("Content-Type", "text/plain")])
    return [b"done"]


def failing(environ, start):
    sound = environ.get("HTTP_AUTHORIZATION", "").count(".") == 2
    start("200 OK" if sound else "500 Internal Server Error", [])
    return [b""]


@pytest.fixture
def serve():
    """A function of a WSGI application: its address."""
    servers = []

    def start(app) -> str:
        server = make_server("127.0.0.1", 0, app, handler_class=Quiet)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/mapper/link"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def key_options(issuer, tmp_path) -> list[str]:
    """Options of a probe that has the issuer's key."""
    private = ec.generate_private_key(ec.SECP256R1())
    issuer.keys = [SigningKey("ES256", private)]
    path = tmp_path / "issuer.pem"
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return [
        *("--token-from", f"key:{path}", "--issuer", issuer.url),
        *("--audience", DEFAULT_AUDIENCE, "--scope", SCOPE),
    ]


def test_an_api_with_the_kit_refuses_all_of_some_two_hundred_attacks(
    issuer, serve, key_options, capsys
):
    with Verifier(issuer.url, DEFAULT_AUDIENCE) as verifier:
        url = serve(requires(SCOPE, verifier=verifier)(application))
        status = main(["probe", url, *key_options, "--format", "json", "--strict"])
    report = json.loads(capsys.readouterr().out)
    not_refused = [each for each in report["attacks"] if each["verdict"] != "refused"]
    assert not_refused == []
    assert status == 0
    assert report["refused"] >= 250
    assert report["unchallenged"] == 0
    names = [(each["group"], each["name"]) for each in report["attacks"]]
    assert len(set(names)) == len(names)


def test_an_api_that_accepts_everything_is_found_out(serve, key_options, tmp_path):
    output = tmp_path / "report.xml"
    arguments = [*key_options, "--format", "junit", "--output", str(output)]
    assert main(["probe", serve(application), *arguments]) == 1
    suite = fromstring(output.read_text())  # noqa: S314 - our own report
    assert int(suite.get("failures")) + int(suite.get("skipped")) == int(suite.get("tests"))
    assert len(suite.findall("testcase/failure")) == int(suite.get("failures")) > 200


def test_an_api_that_fails_is_found_out(issuer, serve, tmp_path, capsys):
    path = tmp_path / "token"
    path.write_text(issuer.token(SCOPE))
    assert main(["probe", serve(failing), "--token-from", f"file:{path}"]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_a_further_token_must_be_refused(issuer, serve, monkeypatch, capsys):
    monkeypatch.setenv("SOUND", issuer.token(SCOPE))
    monkeypatch.setenv("EXPIRED", issuer.token(SCOPE, exp=1, iat=0))
    with Verifier(issuer.url, DEFAULT_AUDIENCE) as verifier:
        url = serve(requires(SCOPE, verifier=verifier)(application))
        arguments = ["--token-from", "env:SOUND", "--refused", "expired=env:EXPIRED"]
        assert main(["probe", url, *arguments, "--refused", "sound=env:SOUND"]) == 1
    output = capsys.readouterr().out
    assert "named: sound (200)" in output
    assert "named: expired" not in output


@pytest.mark.parametrize("source", ["env:UNSET", "nothing", "client", "key:/dev/null"])
def test_a_probe_without_a_sound_token_does_not_begin(serve, source, capsys):
    assert main(["probe", serve(application), "--token-from", source]) == 2
    assert capsys.readouterr().err.startswith("authz-verifier: ")


def test_a_probe_whose_sound_token_is_refused_does_not_begin(issuer, serve, monkeypatch, capsys):
    monkeypatch.setenv("TOKEN", issuer.token("other"))
    with Verifier(issuer.url, DEFAULT_AUDIENCE) as verifier:
        url = serve(requires(SCOPE, verifier=verifier)(application))
        assert main(["probe", url, "--token-from", "env:TOKEN"]) == 2
    assert "answered 403 to the sound token" in capsys.readouterr().err
