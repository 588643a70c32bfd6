"""librdkafka requests a token by the properties of docs/connecting.md, and presents it."""

import re
import time

import httpx
import pytest
from confluent_kafka import KafkaError, Producer

from support.kafka_client import librdkafka_properties
from support.live_server import call_cli
from support.printed_settings import scene
from support.sasl_broker import running_broker

__all__ = ["scene"]

PRESENTED = re.compile(r"n,,\x01auth=Bearer (\S+)\x01\x01")


@pytest.fixture
def properties(scene) -> dict[str, str]:
    """The properties of the document, without TLS."""
    return librdkafka_properties(scene) | {"security.protocol": "SASL_PLAINTEXT"}


def introspect(scene, token: str) -> dict:
    answer = httpx.post(
        f"{scene.server.base_url}/oauth2/introspect",
        data={"token": token},
        headers=scene.demo.mapper.headers(),
    )
    return answer.json()


def first_error(properties: dict[str, str], part: str) -> str:
    """Return the first error with a part that a client without a broker reports."""
    errors: list[KafkaError] = []
    place = {"bootstrap.servers": "127.0.0.1:9", "error_cb": errors.append}
    producer = Producer(properties | place)
    deadline = time.monotonic() + 20
    while not (found := [each.str() for each in errors if part in each.str()]):
        assert time.monotonic() < deadline, errors
        producer.poll(0.1)
    return found[0]


def test_a_client_presents_a_token_that_it_requested_by_basic(scene, properties):
    with running_broker() as broker:
        producer = Producer(properties | {"bootstrap.servers": f"127.0.0.1:{broker.port}"})
        deadline = time.monotonic() + 20
        while broker.presented.empty():
            assert time.monotonic() < deadline
            producer.poll(0.1)
        found = PRESENTED.fullmatch(broker.presented.get())
        del producer
    described = introspect(scene, found[1])
    assert described["active"] is True
    assert described["client_id"] == scene.demo.basic.id
    assert described["scope"] == "mapper/link"


def test_a_wrong_secret_is_reported_to_the_program(scene, properties):
    del scene
    wrong = {"sasl.oauthbearer.client.secret": "wrong"}
    assert "invalid_client" in first_error(properties | wrong, "token")


def test_a_reference_token_is_refused_by_the_client(scene, properties):
    update = ("resource-server", "update", "mapper", "--token-format")
    config = scene.server.settings_path
    assert call_cli(*update, "reference", config=config).returncode == 0
    deadline = time.monotonic() + 60
    while "." in scene.token("mapper/link"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "JWT" in first_error(properties, "token")
    assert call_cli(*update, "jwt", config=config).returncode == 0
