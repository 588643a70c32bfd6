"""The metadata (RFC 8414; OpenID Connect Discovery 1.0): all of it true, and all there is."""

import pytest

from support.claims import header_of
from support.parties import ACTOR
from support.protocol import METHODS, Protocol, require_refusal, running_protocol
from support.settings_file import ISSUER

METADATA = "/.well-known/oauth-authorization-server"
OPENID = "/.well-known/openid-configuration"
ENDPOINT_MEMBERS = {
    "token": "token_endpoint",
    "g2p": "g2p_connect_token_endpoint",
    "introspect": "introspection_endpoint",
    "revoke": "revocation_endpoint",
}


def path_of(url: str, issuer: str = ISSUER) -> str:
    """Return the path of an address of the issuer's host."""
    host = "https://" + issuer.split("/")[2]
    assert url.startswith(f"{host}/")
    return url.removeprefix(host)


def test_members_and_issuer(protocol: Protocol):
    """Case L135."""
    metadata = protocol.get(METADATA).json
    assert metadata["issuer"] == ISSUER
    assert metadata["response_types_supported"] == []
    assert metadata["grant_types_supported"] == list(protocol.services.grants)
    assert "client_credentials" in metadata["grant_types_supported"]
    assert metadata["introspection_signing_alg_values_supported"] == ["ES256"]
    for name, value in metadata.items():
        assert value is not None
        if name.endswith(("_endpoint", "_uri")):
            assert value.startswith(f"{ISSUER}/")
            assert "?" not in value
            assert "#" not in value
    # What is not there is not claimed.
    assert not {"authorization_endpoint", "registration_endpoint", "userinfo_endpoint"} & set(
        metadata
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("endpoint", ENDPOINT_MEMBERS)
def test_every_endpoint_takes_every_method_named(protocol: Protocol, endpoint: str, method: str):
    """Case L135."""
    metadata = protocol.get(METADATA).json
    named = metadata.get(f"{ENDPOINT_MEMBERS[endpoint]}_auth_methods_supported")
    assert named == list(protocol.services.authentication_methods.names) or endpoint == "g2p"
    assert method in protocol.services.authentication_methods.names
    caller = protocol.demo.clients[method]
    headers = caller.headers() | protocol.profile_headers(endpoint)
    path = path_of(metadata[ENDPOINT_MEMBERS[endpoint]])
    data = protocol.form(endpoint) | caller.form()
    assert protocol.send("POST", path, data=data, headers=headers).status_code == 200


@pytest.mark.parametrize("endpoint", ENDPOINT_MEMBERS)
def test_no_endpoint_takes_a_method_that_is_not_named(protocol: Protocol, endpoint: str):
    """Case L135."""
    caller = protocol.demo.post
    assertion = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    for fields, headers in (
        ({"client_id": caller.id}, {}),
        ({"client_assertion": "e30.e30.e30", "client_assertion_type": assertion}, {}),
        ({}, {"Authorization": f"Bearer {caller.secret}"}),
        ({}, {"Authorization": f"DPoP {caller.secret}"}),
        ({"client_id": caller.id}, {"X-Client-Cert": "certificate", "Client-Cert": ":Y2VydA==:"}),
    ):
        answer = protocol.post(endpoint, protocol.form(endpoint) | fields, headers)
        require_refusal(answer, 401, "invalid_client", endpoint)


def test_every_scope_named_is_issued_and_no_other(protocol: Protocol):
    """Case L135."""
    named = set(protocol.get(METADATA).json["scopes_supported"])
    known = {entry.name for entry in protocol.services.catalogue.entries()}
    assert named < known
    everything = protocol.new_client(allowed_scopes=sorted(known))
    for scope in known:
        answer = protocol.ask("token", everything, scope=scope)
        assert answer.status_code == (200 if scope in named else 400), scope


def test_scopes_of_a_disabled_resource_server_are_not_named(protocol: Protocol):
    """Case L135."""
    protocol.parties.make_resource_server("registry")
    before = protocol.get(METADATA)
    assert "registry/search" in before.json["scopes_supported"]
    with protocol.parties.change() as (services, session):
        services.clients.set_enabled(session, "registry", actor=ACTOR, enabled=False)
    after = protocol.get(METADATA, If_None_Match=before.headers["ETag"])
    assert after.status_code == 200
    assert "registry/search" not in after.json["scopes_supported"]
    assert "mapper/link" in after.json["scopes_supported"]


def test_every_algorithm_named_signs(start_protocol):
    """Case L135."""
    rings = {"es256": {"algorithm": "ES256"}, "rs256": {"algorithm": "RS256"}}
    protocol = start_protocol(keys={"rings": rings})
    metadata = protocol.get(METADATA).json
    named = metadata["introspection_signing_alg_values_supported"]
    assert named == ["ES256", "RS256"]
    for algorithm in named:
        with protocol.parties.change() as (services, session):
            services.clients.update_resource_server(
                session, "mapper", actor=ACTOR, signing_ring=algorithm.lower()
            )
        accept = {"Accept": "application/token-introspection+jwt"}
        headers = protocol.demo.mapper.headers() | accept
        answer = protocol.post("introspect", {"token": "x"}, headers)
        assert header_of(answer.text)["alg"] == algorithm


SWITCHED_OFF = {
    "g2p": ({"g2p": {"enabled": False}}, ["g2p"]),
    "revocation": ({"revocation": {"enabled": False}}, ["revoke"]),
    "both": (
        {"introspection": {"enabled": False}, "revocation": {"enabled": False}},
        ["introspect", "revoke"],
    ),
}


@pytest.mark.parametrize("name", SWITCHED_OFF)
def test_what_is_switched_off_is_neither_named_nor_there(start_protocol, name: str):
    """Case L135."""
    overrides, absent = SWITCHED_OFF[name]
    protocol = start_protocol(**overrides)
    metadata = protocol.get(METADATA).json
    for endpoint, member in ENDPOINT_MEMBERS.items():
        assert any(key.startswith(member) for key in metadata) == (endpoint not in absent)
        answer = protocol.ask(endpoint, protocol.demo.post)
        assert answer.status_code == (404 if endpoint in absent else 200)
        if endpoint in absent:
            require_refusal(answer, 404, "invalid_request")


def test_unsigned_answers_alone(start_protocol):
    """Case L135."""
    protocol = start_protocol(introspection={"signed_responses": False})
    assert "introspection_signing_alg_values_supported" not in protocol.get(METADATA).json
    headers = protocol.demo.mapper.headers() | {"Accept": "application/token-introspection+jwt"}
    answer = protocol.post("introspect", {"token": "x"}, headers)
    assert answer.json == {"active": False}


def test_openid_configuration_says_the_same_and_what_is_required_of_it(protocol: Protocol):
    """Case L135."""
    metadata, openid = protocol.get(METADATA).json, protocol.get(OPENID).json
    assert openid.items() >= metadata.items()
    assert openid["subject_types_supported"] == ["public"]
    assert openid["id_token_signing_alg_values_supported"] == ["ES256"]


@pytest.mark.parametrize("path", [METADATA, OPENID])
def test_caching_and_validators(protocol: Protocol, path: str):
    """Case L135."""
    whole, head = protocol.get(path), protocol.send("HEAD", path)
    assert whole.content_type == "application/json"
    assert whole.headers["Cache-Control"] == "public, max-age=300"
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["ETag"] == whole.headers["ETag"]
    assert head.headers["Content-Length"] == whole.headers["Content-Length"]
    unchanged = protocol.get(path, If_None_Match=whole.headers["ETag"])
    assert (unchanged.status_code, unchanged.data) == (304, b"")
    assert unchanged.headers["ETag"] == whole.headers["ETag"]
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert protocol.send(method, path).status_code == 405


PREFIX = "/namespace/v1.0.0"
PREFIXED = {"issuer": f"https://authz.example{PREFIX}", "server": {"mount_prefix": PREFIX}}


@pytest.mark.parametrize("document", [METADATA, OPENID])
def test_mount_prefix(start_protocol, document: str):
    """Case L135."""
    protocol = start_protocol(**PREFIXED)
    # RFC 8414, 3.1 inserts; OpenID Connect Discovery 1.0, 4 appends.
    inserted, appended = (protocol.get(path) for path in (document + PREFIX, PREFIX + document))
    assert inserted.status_code == 200
    assert inserted.data == appended.data
    assert protocol.get(document).status_code == 404
    metadata = inserted.json
    assert metadata["issuer"] == PREFIXED["issuer"]
    keys = protocol.get(path_of(metadata["jwks_uri"]))
    assert len(keys.json["keys"]) == 2
    assert protocol.get("/.well-known/jwks.json").status_code == 404
    for endpoint, member in ENDPOINT_MEMBERS.items():
        path = path_of(metadata[member])
        assert path.startswith(f"{PREFIX}/oauth2/")
        form = protocol.form(endpoint) | protocol.demo.post.form()
        headers = protocol.profile_headers(endpoint)
        assert protocol.send("POST", path, data=form, headers=headers).status_code == 200
        path = path.removeprefix(PREFIX)
        assert protocol.send("POST", path, data=form, headers=headers).status_code == 404


def test_prefix_that_a_proxy_strips(start_protocol):
    """Case L135."""
    protocol = start_protocol(issuer=PREFIXED["issuer"])
    for document in (METADATA, OPENID):
        answers = [protocol.get(path) for path in (document + PREFIX, document)]
        assert answers[0].json["issuer"] == PREFIXED["issuer"]
        assert answers[0].data == answers[1].data
        assert answers[0].json["token_endpoint"] == f"{PREFIXED['issuer']}/oauth2/token"
    assert protocol.ask("token", protocol.demo.post).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/oauth2/token/", "//oauth2/token", "/OAUTH2/token", "/oauth2//token", "/oauth2/authorize"],
)
def test_addresses_have_one_spelling(protocol: Protocol, path: str):
    """Case L135."""
    form = protocol.form("token") | protocol.demo.post.form()
    answer = protocol.send("POST", path, data=form)
    require_refusal(answer, 404, "invalid_request")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_authorization_endpoint_is_published_on_request_and_refuses_everything(
    tmp_path, sqlite_url: str, method: str
):
    with running_protocol(
        tmp_path, sqlite_url, server={"authorization_endpoint": True}
    ) as protocol:
        metadata = protocol.get(METADATA).json
        assert metadata["response_types_supported"] == []
        answer = protocol.send(method, path_of(metadata["authorization_endpoint"]))
        assert (answer.status_code, answer.mimetype) == (400, "text/plain")
        assert "has no log-in" in answer.text
        assert answer.headers["Cache-Control"] == "no-store"


def test_by_default_there_is_no_authorization_endpoint(protocol: Protocol):
    assert protocol.get("/oauth2/authorize").status_code == 404
