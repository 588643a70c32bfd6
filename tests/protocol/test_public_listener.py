"""The public listener: paths that it does not serve, and addresses that reach it."""

from collections.abc import Iterator

import httpx
import pytest

from authz_server.logs import ACCESS_LOGGER
from authz_server.settings import SettingsError
from support.databases import copied_database
from support.edge import ServerFixture, running_edge

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


@pytest.fixture(scope="module")
def edge(request, tmp_path_factory) -> Iterator[ServerFixture]:
    """A running server; which database it has does not matter."""
    directory = tmp_path_factory.mktemp("server")
    with (
        copied_database(request, "sqlite", directory) as url,
        running_edge(directory, url) as edge,
    ):
        yield edge


@pytest.fixture(scope="module")
def client(edge: ServerFixture) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=edge.server.base_url) as client:
        yield client


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS"])
def test_nothing_for_operators_is_on_the_public_port(client: httpx.Client, method: str):
    """Case I107."""
    for path in NOT_PUBLIC:
        answer = client.request(method, path)
        assert answer.status_code in (404, 405), path
        assert_tells_nothing(answer)


def test_answers_name_no_software_and_no_version(client: httpx.Client):
    """Case I107."""
    for path in ("/oauth2/token", "/.well-known/jwks.json", "/nowhere"):
        assert_tells_nothing(client.get(path))
        assert_tells_nothing(client.post(path, data={"a": "b"}))


def test_there_is_no_access_log_by_default(edge: ServerFixture):
    assert edge.token_is_active()
    assert ACCESS_LOGGER not in edge.server.log()


def assert_tells_nothing(answer: httpx.Response) -> None:
    told = f"{answer.headers.get('server', '')} {answer.headers.get('x-powered-by', '')}".lower()
    for word in ("werkzeug", "flask", "python", "uvloop", "authz", "0.", "1.", "2.", "3."):
        assert word not in told
    body = answer.text.lower()
    for word in ("werkzeug", "flask", "traceback", "python", "site-packages", "debugger"):
        assert word not in body


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
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
