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


@pytest.mark.parametrize("status", ["500 Internal Server Error", "429 Too Many Requests"])
def test_an_api_that_fails_is_found_out(issuer, serve, tmp_path, capsys, status):
    def failing(environ, start):
        sound = environ.get("HTTP_AUTHORIZATION", "").count(".") == 2
        start("200 OK" if sound else status, [])
        return [b""]

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


def test_an_api_that_ceases_to_respond_ends_the_probe_early(issuer, serve, tmp_path, capsys):
    sound, released = issuer.token(SCOPE), threading.Event()
    path = tmp_path / "token"
    path.write_text(sound)

    def hanging(environ, start):
        if environ.get("HTTP_AUTHORIZATION") != f"Bearer {sound}":
            released.wait(60)
        return application(environ, start)

    arguments = ["--token-from", f"file:{path}", "--timeout", "0.2", "--format", "json"]
    try:
        assert main(["probe", serve(hanging), *arguments]) == 1
    finally:
        released.set()
    printed = capsys.readouterr()
    assert json.loads(printed.out)["failed"] == 5
    assert "ceased to respond" in printed.err


@pytest.mark.parametrize("status", ["302 Found", "404 Not Found", "422 Unprocessable Content"])
def test_any_response_but_a_success_is_a_refusal(issuer, serve, tmp_path, capsys, status):
    sound = issuer.token(SCOPE)
    path = tmp_path / "token"
    path.write_text(sound)

    def api(environ, start):
        accepted = environ.get("HTTP_AUTHORIZATION") == f"Bearer {sound}"
        length = int(environ.get("CONTENT_LENGTH") or 0)
        accepted = accepted and environ["wsgi.input"].read(length) == b"{}"
        start("200 OK" if accepted else status, [("Location", "/")])
        return [b""]

    arguments = ["--method", "POST", "--body", "{}", "--token-from", f"file:{path}"]
    assert main(["probe", serve(api), *arguments]) == 0
    assert "0 accepted, 0 lax, 0 failed" in capsys.readouterr().out
    # A sound token has to succeed.
    assert main(["probe", serve(api), *arguments[4:]]) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("--ca-file", "/nowhere"),
        ("--refused", "\x01=-"),
        ("--refused", "expired=env:UNSET"),
        ("--refused", "expired=file:/bin/sh"),
        ("--token-from", "file:/bin/sh"),
    ],
)
def test_options_that_cannot_be_used_are_described(serve, monkeypatch, capsys, arguments):
    monkeypatch.setenv("TOKEN", "e30.e30.e30")
    assert main(["probe", serve(application), "--token-from", "env:TOKEN", *arguments]) == 2
    assert capsys.readouterr().err.startswith("authz-verifier: ")


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
