"""The settings of federated introspection: those that stop the start, and faults of one issuer."""

from importlib.metadata import EntryPoint

import pytest

from authz_server.plugin_manager import ENTRY_POINT_GROUP, PluginError, PluginManager

RIGHT = {
    "issuer": "https://partner.example",
    "scopes": ["a"],
    "introspection_endpoint": "https://p",
}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"issuers": {}},
        {"issuers": {"p": RIGHT}, "cash_seconds": 1},
        {"issuers": {"p": RIGHT}, "cache_seconds": 61},
        {"issuers": {"p": RIGHT, "q": RIGHT}},
        {"issuers": {"p": RIGHT | {"scopes": []}}},
        {"issuers": {"p": RIGHT | {"scope": ["a"]}}},
        {"issuers": {"p": RIGHT | {"client_id": "us"}}},
        {"issuers": {"p": {"issuer": "https://unregistered.example", "scopes": ["a"]}}},
        {"issuers": {"p": {"issuer": "https://p", "scopes": ["a"], "token_prefix": "p_"}}},
    ],
    ids=str,
)
def test_settings_that_cannot_be_used_stop_the_start(settings):
    with pytest.raises(PluginError, match="plugin federated_introspection: it cannot start"):
        start(settings)


def test_a_fault_of_one_issuer_is_reported_and_does_not_stop_the_start():
    wrong = {"introspection_endpoint": "partner.example", "ca_file": "/dev/null"}
    faults = start({"issuers": {"p": RIGHT | wrong}}).faults
    assert [each.split(": ")[:2] for each in faults] == [
        ["plugin federated_introspection", "issuers.p.introspection_endpoint"],
        ["plugin federated_introspection", "issuers.p.ca_file"],
    ]


def start(settings):
    place = "plugins.federated_introspection:FederatedIntrospection"
    available = [EntryPoint("federated_introspection", place, ENTRY_POINT_GROUP)]

    class Services:
        def find_issuer(self, _):
            return None

    return PluginManager(
        ["federated_introspection"],
        {"federated_introspection": settings},
        available,
        services=Services(),
    )
