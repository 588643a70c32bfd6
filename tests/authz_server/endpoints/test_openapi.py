"""The OpenAPI document is filled in whole, whatever features are enabled."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from authz_server.endpoints import openapi
from authz_server.endpoints.discovery import Features
from authz_server.endpoints.openapi import describe_interface
from authz_server.settings import G2PSettings

TEMPLATE = json.loads(Path(openapi.__file__).with_name("openapi.json").read_text())


def make_features(*, enabled):
    """Return features, each of them on or each of them off."""
    values = {bool: enabled, str: "https://auth.example/ns"}
    chosen = {field.name: values.get(field.type, ("one",)) for field in fields(Features)}
    return Features(**chosen)


def nodes(value, name=""):
    """Yield the name and the value of everything in a document."""
    yield name, value
    members = value.items() if isinstance(value, dict) else ()
    members = enumerate(value) if isinstance(value, list) else members
    for key, member in members:
        yield from nodes(member, key)


@pytest.mark.parametrize("enabled", [True, False], ids=["all features", "no feature"])
def test_no_notation_is_left_and_every_reference_leads_somewhere(enabled):
    document = describe_interface(make_features(enabled=enabled), G2PSettings())
    assert "${" not in json.dumps(document)
    assert not [name for name, _ in nodes(document) if str(name).startswith("x-")]
    for name, value in nodes(document):
        if name == "$ref":
            found = document
            for step in value.removeprefix("#/").split("/"):
                found = found[step]


def test_a_feature_adds_its_addresses():
    addresses = {
        enabled: describe_interface(make_features(enabled=enabled), G2PSettings())["paths"].keys()
        for enabled in (True, False)
    }
    assert addresses[False] < addresses[True]
    assert {"/oauth2/introspect", "/oauth2/revoke"} <= addresses[True] - addresses[False]


def test_every_part_is_used():
    used = {
        name
        for key, value in nodes(TEMPLATE)
        if key == "x-use"
        for name in re.sub(r"\$\{\w+\}", "", value).split()
    }
    further = {name for key, value in nodes(TEMPLATE) if key == "further" for name in value.split()}
    assert used | further == TEMPLATE["x-parts"].keys()
