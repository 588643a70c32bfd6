"""A Kafka broker, a Java client and librdkafka, each with the settings of the document, at work.

Maven fetches the broker into its own cache; without Maven, this is named as not run.
"""

import subprocess
import time
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from support.kafka_broker import KafkaBroker, kafka_libraries, running_broker
from support.kafka_client import java_properties, librdkafka_properties
from support.printed_settings import scene

__all__ = ["kafka_libraries", "scene"]

# The first build fetches some 70 MB.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def broker(scene, kafka_libraries, tmp_path_factory):
    with running_broker(kafka_libraries, scene, tmp_path_factory.mktemp("broker")) as broker:
        yield broker


def librdkafka_lists_topics(broker: KafkaBroker, properties: dict[str, str]) -> bool:
    place = {"bootstrap.servers": broker.address, "ssl.ca.location": str(broker.authority_path)}
    client = AdminClient(properties | place)
    deadline = time.monotonic() + 30
    # Its first token arrives while it is polled.
    while time.monotonic() < deadline:
        client.poll(0.1)
        try:
            client.list_topics(timeout=5)
        except KafkaException as error:
            if "Authentication" in str(error):
                return False
        else:
            return True
    return False


def java_lists_topics(
    broker: KafkaBroker, libraries: Path, scene, properties: str, folder: Path
) -> subprocess.CompletedProcess[str]:
    more = f"ssl.truststore.type=PEM\nssl.truststore.location={broker.authority_path}\n"
    path = folder / "client.properties"
    path.write_text(properties + more, encoding="utf-8")
    endpoint = f"{scene.server.base_url}/oauth2/token"
    command = [
        *("java", f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={endpoint}"),
        *("-cp", f"{libraries}/*", "org.apache.kafka.tools.TopicCommand", "--list"),
        *("--bootstrap-server", broker.address, "--command-config", str(path)),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_a_broker_accepts_librdkafka_with_its_audience_alone(scene, broker):
    ours = librdkafka_properties(scene)
    assert librdkafka_lists_topics(broker, ours)
    assert not librdkafka_lists_topics(broker, librdkafka_properties(scene, "disburse/disburse"))


def test_a_broker_accepts_a_java_client(scene, broker, kafka_libraries, tmp_path):
    properties = java_properties(scene)
    run = java_lists_topics(broker, kafka_libraries, scene, properties, tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    other = java_properties(scene, "disburse/disburse")
    run = java_lists_topics(broker, kafka_libraries, scene, other, tmp_path)
    assert '{"status":"invalid_token"}' in run.stdout
