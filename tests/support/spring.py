"""An API with Spring Security's resource server, built by Maven and run with printed settings."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.maven import build
from support.ports import release_port, reserve_port
from support.printed_settings import Scene
from support.printed_verifiers import running
from support.source_tree import ROOT

#: The class around the bean of docs/connecting.md; without the profile, Spring Boot makes its own.
_BEAN = """\
package org.example;

import com.nimbusds.jose.jwk.source.JWKSourceBuilder;
import java.net.URL;
import java.time.Instant;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.context.annotation.Profile;
import org.springframework.security.oauth2.jose.jws.SignatureAlgorithm;
import org.springframework.security.oauth2.jwt.JwtClaimValidator;
import org.springframework.security.oauth2.jwt.JwtDecoder;
import org.springframework.security.oauth2.jwt.JwtValidators;
import org.springframework.security.oauth2.jwt.NimbusJwtDecoder;

@Configuration
@Profile("documented")
class AccessTokens {
%s}
"""


@pytest.fixture(scope="session")
def spring_program(run_directory: Path) -> Path:
    """The program of tests/foreign/spring, with the bean of docs/connecting.md."""
    return build_spring(run_directory, {})


def build_spring(run_directory: Path, added: Mapping[str, str]) -> Path:
    """Build the program with the documented bean and further sources; return its path."""
    document = (ROOT / "docs" / "connecting.md").read_text(encoding="utf-8")
    (bean,) = re.findall(r"^```java\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)
    sources = {"src/main/java/org/example/AccessTokens.java": _BEAN % bean, **added}
    return build("spring", "the settings for Spring Security", run_directory, sources) / "api.jar"


@contextmanager
def running_spring(
    program: Path, scene: Scene, settings: str, scope: str, *profiles: str
) -> Iterator[str]:
    """Run the API with an application.yaml; yield its address.

    `profiles` are Spring's: with `documented`, the bean of docs/connecting.md checks tokens.
    """
    port = reserve_port()
    # Fewer threads and no optimizing compiler: it starts in half the time.
    java = ("java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-jar", str(program))
    command = [*java, *spring_options(scene, port, settings, scope, *profiles)]
    secret = {"AUTHZ_SECRET": scene.demo.mapper.secret}
    with running(command, port, scene.folder / f"application-{port}.log", secret) as url:
        yield url
    release_port(port)


def spring_options(scene: Scene, port: int, settings: str, scope: str, *profiles: str) -> list[str]:
    """Write an application.yaml; return the options that run the API with it."""
    path = scene.folder / f"application-{port}.yaml"
    path.write_text(settings, encoding="utf-8")
    options = {
        "server.address": "127.0.0.1",
        "server.port": port,
        "api.scope": scope,
        "spring.config.location": path,
        "spring.profiles.active": ",".join(profiles),
    }
    return [f"--{name}={value}" for name, value in options.items()]
