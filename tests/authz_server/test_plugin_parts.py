"""Parts that plugins register: joined with the built-in ones, each name offered once."""

import re
from typing import ClassVar

import pytest

from authz_server.clients.authentication.method import ClientAuthenticationMethod
from authz_server.clients.authentication.registry import collect_methods
from authz_server.grants.base import TokenGrant
from authz_server.grants.client_credentials import ClientCredentialsGrant
from authz_server.grants.registry import collect_grants
from authz_server.grants.token_exchange import TokenExchangeGrant
from authz_server.key_rings.backends import collect_backends
from authz_server.plugin_manager import PluginError
from authz_server.tokens.authorization_details import collect_types
from authz_server.tokens.authorization_details_type import AuthorizationDetailsType
from authz_server.tokens.introspection_source import IntrospectionSource, collect_sources
from keys.backends.registry import BackendContext
from keys.errors import KeysError
from support.clock import FakeClock
from support.loaded_plugins import plugin_with, plugins
from support.source_tree import ROOT


class Grant(TokenGrant):
    GRANT_TYPE = "urn:example:grant"

    async def authorize(self):
        """Grant nothing."""


class Unnamed(TokenGrant):
    async def authorize(self):
        """Grant nothing."""


class Idle(TokenGrant):
    GRANT_TYPE = "urn:example:idle"


def test_hook_register_grants_adds_to_the_built_in_ones():
    found = collect_grants(plugins(one=plugin_with("register_grants", lambda: [Grant])))
    assert found == {
        "client_credentials": ClientCredentialsGrant,
        "urn:ietf:params:oauth:grant-type:token-exchange": TokenExchangeGrant,
        "urn:example:grant": Grant,
    }


@pytest.mark.parametrize("returned", [ClientCredentialsGrant, Unnamed, Idle, object, Grant(1, 2)])
def test_hook_register_grants_that_returns_no_new_grant_stops_the_start(returned):
    loaded = plugins(one=plugin_with("register_grants", lambda: [returned]))
    with pytest.raises(PluginError, match="plugin one"):
        collect_grants(loaded)


class Region(AuthorizationDetailsType):
    TYPE = "search_region"
    SCOPES = ("registry/search",)

    def check_grant(self, grant):
        """Accept every grant."""

    def find_granted(self, detail, grant):
        """Grant nothing."""


class SameType(Region):
    TYPE = "g2p_disbursement"


class Placeless(Region):
    SCOPES = ()


def test_hook_register_authorization_details_types_adds_to_the_built_in_ones():
    region = Region()
    hook = "register_authorization_details_types"
    found = collect_types(plugins(one=plugin_with(hook, lambda: [region])))
    assert list(found) == ["g2p_disbursement", "search_region"]
    assert found["search_region"] is region


@pytest.mark.parametrize("returned", [SameType(), Placeless(), Region, object()])
def test_hook_register_authorization_details_types_that_returns_no_new_type_stops_the_start(
    returned,
):
    hook = "register_authorization_details_types"
    loaded = plugins(one=plugin_with(hook, lambda: [returned]))
    with pytest.raises(PluginError, match="plugin one"):
        collect_types(loaded)


def test_the_type_in_the_document_grants_what_its_grant_covers():
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    section = text.partition("\n## A type of authorization details\n")[2].partition("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    names = {}
    exec(compile(code, "plugins.md", "exec"), names)  # noqa: S102 - the project's own document
    region = collect_types(plugins(one=names["Regions"]))["search_region"]
    grant = {"regions": ["north"]}
    region.check_grant(grant)
    assert region.find_granted({"region": "north"}, grant) == {"region": "north"}
    assert region.find_granted({"region": "south"}, grant) is None
    for detail in ({}, {"region": "north", "town": "a"}):
        with pytest.raises(ValueError, match="region"):
            region.find_granted(detail, grant)
    with pytest.raises(ValueError, match="regions"):
        region.check_grant({"region": "north"})


class Method(ClientAuthenticationMethod):
    NAMES = ("example_method",)
    REGISTRATIONS: ClassVar = {"example": NAMES}

    def recognise(self, request):
        """Recognise nothing."""

    def verify(self, reading, client, address, now):
        """Refuse."""


class Twin(Method):
    NAMES = ("example_method",)
    REGISTRATIONS: ClassVar = {"twin": NAMES}


class Shouting(Method):
    NAMES = ("example_method",)
    REGISTRATIONS: ClassVar = {"Example!": NAMES}


class Namesake(Method):
    NAMES = ("namesake",)
    REGISTRATIONS: ClassVar = {"example": NAMES}


def test_hook_register_client_authentication_methods_adds_to_the_built_in_ones():
    hook = "register_client_authentication_methods"
    loaded = plugins(one=plugin_with(hook, lambda: [Namesake()]))
    methods = collect_methods([Twin()], loaded)
    assert methods.names == ("example_method", "namesake")
    assert methods.registrations == ("twin", "example")


@pytest.mark.parametrize(
    ("returned", "problem"),
    [
        (Method, "is not a ClientAuthenticationMethod"),
        (object(), "is not a ClientAuthenticationMethod"),
        (Shouting(), "'Example!' is not 1 to 40"),
        (Twin(), "method 'example_method': provided by both authz-server and plugin one"),
        (
            Namesake(),
            "'example': provided by both authz-server and plugin one",
        ),
    ],
)
def test_hook_register_client_authentication_methods_refuses_others_and_names_taken(
    returned, problem
):
    hook = "register_client_authentication_methods"
    loaded = plugins(one=plugin_with(hook, lambda: [returned]))
    with pytest.raises(PluginError, match=problem):
        collect_methods([Method()], loaded)


def test_hook_register_key_backends_adds_to_the_installed_ones():
    def open_backend(uri, _context):
        return uri

    hook = "register_key_backends"
    registry = collect_backends(plugins(one=plugin_with(hook, lambda: {"shed": open_backend})))
    context = BackendContext(clock=FakeClock())
    assert registry.open("shed://x", context) == "shed://x"
    with pytest.raises(KeysError, match=r"installed: .*file.*shed.*sql"):
        registry.open("nowhere://", context)


@pytest.mark.parametrize("returned", [{"shed": 1}, {1: print}, ["shed"]])
def test_hook_register_key_backends_that_returns_something_else_stops_the_start(returned):
    loaded = plugins(one=plugin_with("register_key_backends", lambda: returned))
    with pytest.raises(PluginError, match="plugin one: register_key_backends failed"):
        collect_backends(loaded)


def test_hook_register_key_backends_that_offers_an_installed_scheme_is_refused():
    loaded = plugins(one=plugin_with("register_key_backends", lambda: {"sql": print}))
    with pytest.raises(
        KeysError,
        match="'sql': provided by both the package authz-server and plugin one",
    ):
        collect_backends(loaded)


class Source(IntrospectionSource):
    NAME = "source"

    def __init__(self, name="source"):
        self.NAME = name

    async def find_active(self, token):
        """Know no token."""


def test_hook_register_introspection_sources_gives_sources_by_name():
    hook = "register_introspection_sources"
    sources = [Source("one"), Source("two")]
    found = collect_sources(plugins(one=plugin_with(hook, lambda: sources)))
    assert found == {"one": sources[0], "two": sources[1]}


@pytest.mark.parametrize("returned", [Source, object(), Source(""), Source(7), Source("x\n")])
def test_hook_register_introspection_sources_that_returns_no_source_stops_the_start(returned):
    loaded = plugins(one=plugin_with("register_introspection_sources", lambda: [returned]))
    with pytest.raises(PluginError, match="plugin one"):
        collect_sources(loaded)


def test_two_sources_of_one_name_stop_the_start():
    hook = "register_introspection_sources"
    classes = {name: plugin_with(hook, lambda: [Source()]) for name in ("one", "two")}
    with pytest.raises(PluginError, match="'source': provided by both plugin one and plugin two"):
        collect_sources(plugins(**classes))
