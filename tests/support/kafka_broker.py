"""A Kafka broker with the printed settings. Maven fetches it; TLS is the test's own."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.maven import build
from support.openbao_authority import CertificateAuthority
from support.ports import release_port, reserve_port
from support.printed_settings import Scene
from support.printed_verifiers import replaced, running

_CLUSTER = "authzServerTestCluster"
#: Beside the printed settings: a broker and its controller in one process.
_MORE = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@localhost:{controller}
controller.listener.names=CONTROLLER
inter.broker.listener.name=INTERNAL
listener.security.protocol.map=SASL_SSL:SASL_SSL,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT
advertised.listeners=SASL_SSL://localhost:{port},INTERNAL://localhost:{internal}
listener.name.sasl_ssl.ssl.keystore.type=PEM
listener.name.sasl_ssl.ssl.keystore.location={keystore}
log.dirs={folder}/data
offsets.topic.replication.factor=1
"""


@dataclass(frozen=True)
class KafkaBroker:
    """Where a broker listens, and the certificate of its authority."""

    address: str
    authority_path: Path


@pytest.fixture(scope="session")
def kafka_libraries(run_directory: Path) -> Path:
    """The folder with the libraries of a broker."""
    return build("kafka", "the settings for Kafka", run_directory, {}) / "libraries"


@contextmanager
def running_broker(libraries: Path, scene: Scene, folder: Path) -> Iterator[KafkaBroker]:
    """Run a broker with the settings that the command prints."""
    port, internal, controller = (reserve_port() for _ in range(3))
    authority = CertificateAuthority(folder)
    certificate, key = authority.certify("localhost")
    keystore = folder / "broker.pem"
    keystore.write_bytes(key.read_bytes() + certificate.read_bytes())
    listeners = f"SASL_SSL://localhost:{port},INTERNAL://localhost:{internal}"
    listeners += f",CONTROLLER://localhost:{controller}"
    printed = replaced(scene.snippet("kafka"), ("SASL_SSL://:9093", 1, listeners))
    more = _MORE.format(
        port=port, internal=internal, controller=controller, keystore=keystore, folder=folder
    )
    settings = folder / "server.properties"
    settings.write_text(printed + more, encoding="utf-8")
    keys = f"{scene.server.base_url}/.well-known/jwks.json"
    java = [
        *("java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx512m"),
        f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={keys}",
        *("-cp", f"{libraries}/*"),
    ]
    formatted = subprocess.run(
        [*java, "kafka.tools.StorageTool", "format", "-t", _CLUSTER, "-c", settings],
        capture_output=True,
        text=True,
        check=False,
    )
    assert formatted.returncode == 0, formatted.stdout + formatted.stderr
    with running([*java, "kafka.Kafka", str(settings)], port, folder / "broker.log"):
        yield KafkaBroker(f"localhost:{port}", authority.certificate_path)
    for each in (port, internal, controller):
        release_port(each)
