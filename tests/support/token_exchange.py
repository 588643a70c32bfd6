"""Token exchange as a gateway asks for it (RFC 8693, 2.1)."""

from support.parties import RESOURCE_SERVERS
from support.protocol import Protocol

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
TYPES = "urn:ietf:params:oauth:token-type:"
ACCESS_TOKEN, JWT = f"{TYPES}access_token", f"{TYPES}jwt"
MAPPER, DISBURSE = RESOURCE_SERVERS["mapper"], RESOURCE_SERVERS["disburse"]
SCOPES = ["mapper/link", "mapper/resolve", "disburse/search"]


def new_gateway(protocol: Protocol, method: str = "client_secret_post", **policy):
    """Make a client that exchanges the tokens of any client for tokens of the mapper."""
    usual = {"subjects": ["*"], "audiences": ["mapper"]}
    return protocol.new_client(
        method,
        allowed_scopes=SCOPES,
        grant_types=["client_credentials", GRANT_TYPE],
        properties={"token_exchange": usual | policy},
    )


def exchange(protocol: Protocol, client, presented: str, endpoint="token", **fields):
    """Exchange a token without naming scopes, unless told otherwise; return the response."""
    usual = {
        "grant_type": GRANT_TYPE,
        "scope": "",
        "subject_token": presented,
        "subject_token_type": ACCESS_TOKEN,
    }
    return protocol.ask(endpoint, client, **usual | fields)


def seen_by(protocol: Protocol, caller, token: str):
    """Return the introspection response of a caller."""
    return protocol.ask("introspect", caller, token=token).json
