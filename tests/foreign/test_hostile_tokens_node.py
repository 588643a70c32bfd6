"""What the printed settings for Express let through."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.ports import release_port, reserve_port
from support.printed_settings import Scene, scene
from support.printed_verifiers import replaced, running
from support.probing import documented, probe

__all__ = ["scene"]


@pytest.fixture(scope="module")
def express_url(scene: Scene, express: Path) -> Iterator[str]:
    """The address of the printed API in Node."""
    port, path = reserve_port(), express / "probed.js"
    listening = ("app.listen(9000)", 1, f'app.listen({port}, "127.0.0.1")')
    path.write_text(replaced(scene.snippet("node"), listening))
    with running(["node", str(path)], port, scene.folder / "probed.log") as url:
        yield url
    release_port(port)


def test_express_lets_through_what_the_document_says(scene, express_url, tmp_path):
    found = probe(scene, express_url, tmp_path, "POST")
    assert found == documented("express-oauth2-jwt-bearer")
