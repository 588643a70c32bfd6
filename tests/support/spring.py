"""An API with Spring Security's resource server, built by Maven and run with printed settings."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.not_run import skip_as_not_run
from support.ports import release_port, reserve_port
from support.printed_settings import Scene
from support.printed_verifiers import running
from support.source_tree import ROOT

_SOURCE = ROOT / "tests" / "foreign" / "spring"
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
def spring_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of tests/foreign/spring, with the bean of docs/connecting.md."""
    for needed in ("java", "mvn"):
        if shutil.which(needed) is None:
            skip_as_not_run("the settings for Spring Security", needed)
    folder = tmp_path_factory.mktemp("spring") / "api"
    shutil.copytree(_SOURCE, folder, ignore=shutil.ignore_patterns("target"))
    document = (ROOT / "docs" / "connecting.md").read_text(encoding="utf-8")
    (bean,) = re.findall(r"^```java\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)
    path = folder / "src" / "main" / "java" / "org" / "example" / "AccessTokens.java"
    path.write_text(_BEAN % bean, encoding="utf-8")
    command = ["mvn", "--batch-mode", "--quiet", "--strict-checksums", "package"]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "target" / "api.jar"


@contextmanager
def running_spring(
    program: Path, scene: Scene, settings: str, scope: str, *profiles: str
) -> Iterator[str]:
    """Run the API with an application.yaml; yield its address.

    `profiles` are Spring's: with `documented`, the bean of docs/connecting.md checks tokens.
    """
    port = reserve_port()
    path = scene.folder / f"application-{port}.yaml"
    path.write_text(settings, encoding="utf-8")
    options = {
        "server.address": "127.0.0.1",
        "server.port": port,
        "api.scope": scope,
        "spring.config.location": path,
        "spring.profiles.active": ",".join(profiles),
    }
    # Fewer threads and no optimizing compiler: it starts in half the time.
    java = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-jar", str(program)]
    command = [*java, *(f"--{name}={value}" for name, value in options.items())]
    secret = {"AUTHZ_SECRET": scene.demo.mapper.secret}
    with running(command, port, path.with_suffix(".log"), secret) as url:
        yield url
    release_port(port)
