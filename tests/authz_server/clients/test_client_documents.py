"""Ids of clients that publish their metadata: one spelling of each address."""

import pytest

from authz_server.clients.client_documents import ClientDocuments
from authz_server.clients.fetching import Fetcher
from authz_server.settings import ClientDocumentSettings, OutboundSettings

ORIGINS = ("https://clients.example", "https://clients.example:8443")


def make_documents(**settings) -> ClientDocuments:
    """Return the clients of two origins, of which no document was fetched."""
    allowed = dict.fromkeys(ORIGINS, ("mapper/link",))
    documents = ClientDocumentSettings(allowed_origins=allowed, **settings)
    return ClientDocuments(documents, Fetcher(OutboundSettings()), tuple)


@pytest.mark.parametrize(
    ("client_id", "is_accepted"),
    [
        ("https://clients.example/erp", True),
        ("https://clients.example/ERP", True),
        ("https://clients.example/erp/", True),
        ("https://clients.example/a%2Fb", True),
        ("https://clients.example:8443/erp", True),
        ("https://clients.example:443/erp", False),
        ("https://clients.example:08443/erp", False),
        ("https://Clients.example/erp", False),
        ("HTTPS://clients.example/erp", False),
        ("https://clients.example/%65rp", False),
        ("https://clients.example/a%2fb", False),
        ("https://clients.example/a%7Eb", False),
    ],
)
def test_only_the_normal_form_of_an_address_is_an_id(client_id: str, *, is_accepted: bool):
    """RFC 3986, 6.2: the others escape what an operator has refused, stopped or revoked."""
    assert (make_documents().find(client_id) is not None) is is_accepted


def test_a_refused_client_may_be_written_in_any_spelling():
    documents = make_documents(refused_client_ids=("https://CLIENTS.example:443/%65rp",))
    assert documents.find("https://clients.example/erp") is None
    assert documents.find("https://clients.example/other") is not None
