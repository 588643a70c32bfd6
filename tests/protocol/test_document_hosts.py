"""Under which names the public documents may be kept by caches."""

import pytest

from support.protocol import running_protocol

DOCUMENTS = (
    "/.well-known/jwks.json",
    "/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration",
)


@pytest.fixture(scope="module")
def protocol(module_database_url, tmp_path_factory):
    """An application that has two further names."""
    hosts = ["auth.internal:8443", "10.0.0.7"]
    directory = tmp_path_factory.mktemp("protocol")
    with running_protocol(directory, module_database_url, server={"hosts": hosts}) as protocol:
        yield protocol


@pytest.mark.parametrize("path", DOCUMENTS)
@pytest.mark.parametrize(
    "host",
    [
        *("authz.example", "AUTHZ.example", "authz.example:443"),
        *("auth.internal:8443", "10.0.0.7", "10.0.0.7:443"),
    ],
)
def test_a_document_may_be_kept_under_a_name_of_the_server(protocol, path, host):
    answer = protocol.get(path, Host=host)
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"].startswith("public, max-age=")
    assert protocol.get(path, Host=host, If_None_Match=answer.headers["ETag"]).status_code == 304


@pytest.mark.parametrize("path", DOCUMENTS)
@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "authz.example:8443", "authz.example:80", "authz.example."),
        *("auth.internal", "10.0.0.7:80"),
    ],
)
def test_a_document_is_not_kept_under_any_other_name(protocol, path, host):
    ours = protocol.get(path, Host="authz.example")
    answer = protocol.get(path, Host=host, If_None_Match=ours.headers["ETag"])
    assert (answer.status_code, answer.data) == (200, ours.data)
    assert answer.headers["Cache-Control"] == "no-store"
    assert "ETag" not in answer.headers


@pytest.mark.parametrize("name", ["X_Forwarded_Host", "Forwarded", "X_Original_Host"])
def test_no_other_header_names_the_host(protocol, name):
    """Case I100."""
    value = "host=authz.example" if name == "Forwarded" else "authz.example"
    answer = protocol.get(DOCUMENTS[0], Host="evil.example", **{name: value})
    assert answer.headers["Cache-Control"] == "no-store"
