"""Languages of the messages of the G2P Connect profile (RFC 9110, 12.5.4; RFC 4647, 3.4)."""

import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from authz_server.app import create_app
from authz_server.endpoints.languages import MessageCatalogue
from authz_server.errors import REASONS
from authz_server.settings import SettingsError
from support.protocol import Protocol

SHIPPED = ("es", "fr", "pt")
MALFORMED = "timestamp_malformed"


def refused(protocol: Protocol, accept_language: str | None):
    """Return the refusal of a request with a bad timestamp, in the language asked for."""
    headers = {"timestamp": "x"}
    if accept_language is not None:
        headers["accept-language"] = accept_language
    return protocol.post("g2p", {}, headers)


def language_of(protocol: Protocol, accept_language: str | None) -> str:
    """Return the language of the answer, its message being the catalogue's."""
    answer = refused(protocol, accept_language)
    language = answer.headers["Content-Language"]
    message = REASONS[MALFORMED].description if language == "en" else shipped(language)[MALFORMED]
    assert answer.json["errors"] == [{"code": "invalid_request", "message": message}]
    # RFC 6749, 5.2 has no room for other characters here.
    assert answer.json["error_description"] == REASONS[MALFORMED].description
    return language


def shipped(language: str) -> dict[str, str]:
    """Return a shipped catalogue."""
    folder = files("authz_server.endpoints").joinpath("messages")
    return tomllib.loads(folder.joinpath(f"{language}.toml").read_text("utf-8"))


@pytest.mark.parametrize("language", SHIPPED)
def test_catalogues_are_complete(language: str):
    messages = shipped(language)
    assert messages.keys() == REASONS.keys()
    assert len(set(messages.values())) == len(messages)
    for reason, message in messages.items():
        assert message.endswith(".")
        assert message.isprintable()
        assert message != REASONS[reason].description


def test_shipped_languages():
    assert MessageCatalogue("en", "").languages == ("en", *SHIPPED)


ASKED = {
    None: "en",
    "": "en",
    "en": "en",
    "fr": "fr",
    "es": "es",
    "pt": "pt",
    "FR": "fr",
    "fr-CA": "fr",
    "pt-BR": "pt",
    "es-419": "es",
    "zh-Hant-TW": "en",
    "fr-Latn-CH-x-private": "fr",
    "en-US": "en",
    "de": "en",
    "de, fr": "fr",
    "de;q=1, es;q=0.1": "es",
    "fr;q=0.5, es;q=0.9": "es",
    "fr;q=0.5,es;q=0.5": "fr",
    "en;q=0.8, pt;q=0.801": "pt",
    "fr;q=0, es": "es",
    "fr;q=0": "en",
    "fr;q=0.000": "en",
    "fr ; q=1": "fr",
    "fr;Q=1": "fr",
    "*": "en",
    "*;q=0.5, fr": "fr",
    "de, *": "en",
    " fr ": "fr",
    "fr,": "fr",
    ",,fr": "fr",
    "fr;q=2": "en",
    "fr;q=nan": "en",
    "fr;q=-1": "en",
    "fr;q=": "en",
    "fr;x=1": "en",
    "../fr": "en",
    "fr.toml": "en",
    "-": "en",
    "fr-": "fr",
    "français": "en",
    ";;;===,,,": "en",
    "de," * 40_000: "en",
    "a-" * 4_000: "en",
}


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: repr(asked)[:30])
def test_language_is_picked_by_the_header(protocol: Protocol, asked: str | None):
    assert language_of(protocol, asked) == ASKED[asked]


@pytest.mark.parametrize("endpoint", ["token", "introspect", "revoke"])
def test_other_endpoints_ignore_it(protocol: Protocol, endpoint: str):
    answer = protocol.post(endpoint, {}, {"accept-language": "fr"})
    assert answer.json.keys() == {"error", "error_description"}
    assert "Content-Language" not in answer.headers


@pytest.mark.parametrize("language", SHIPPED)
def test_default_language_is_a_setting(start_protocol, language: str):
    protocol = start_protocol(g2p={"default_language": language})
    assert language_of(protocol, None) == language
    assert language_of(protocol, "de") == language
    assert language_of(protocol, "en") == "en"


@pytest.fixture
def catalogues(tmp_path: Path) -> Path:
    folder = tmp_path / "catalogues"
    folder.mkdir()
    (folder / "sw.toml").write_text(f'{MALFORMED} = "Kichwa cha timestamp kinahitajika."\n')
    (folder / "pt-BR.toml").write_text(f'{MALFORMED} = "Falta o timestamp."\n')
    (folder / "fr.toml").write_text(f'{MALFORMED} = "Horodatage absent."\n')
    (folder / "readme.txt").write_text("not a catalogue")
    return folder


def test_added_catalogues(start_protocol, catalogues: Path):
    protocol = start_protocol(
        g2p={"catalogue_directory": str(catalogues), "default_language": "pt-BR"}
    )
    for asked, language, message in (
        ("sw-KE", "sw", "Kichwa cha timestamp kinahitajika."),
        ("pt-BR", "pt-br", "Falta o timestamp."),
        ("pt-PT", "pt", shipped("pt")[MALFORMED]),
        ("fr", "fr", "Horodatage absent."),
        (None, "pt-br", "Falta o timestamp."),
    ):
        answer = refused(protocol, asked)
        assert answer.headers["Content-Language"] == language
        assert answer.json["errors"][0]["message"] == message
    # What a catalogue does not say is said in English, and called so.
    answer = protocol.post("g2p", {}, {"accept-language": "sw"})
    assert answer.headers["Content-Language"] == "en"
    assert answer.json["errors"][0]["message"] == answer.json["error_description"]


BROKEN = {
    "unknown-reason": 'no_such_reason = "x"',
    "number": f"{MALFORMED} = 1",
    "table": f'[{MALFORMED}]\na = "x"',
    "no-toml": "x",
    "deep": "x = " + "[" * 99_999,
}


@pytest.mark.parametrize("name", BROKEN)
def test_catalogue_that_cannot_be_used(make_settings, sqlite_url, catalogues: Path, name: str):
    """Case L129."""
    (catalogues / "sw.toml").write_text(BROKEN[name])
    settings = make_settings(
        database={"url": sqlite_url}, g2p={"catalogue_directory": str(catalogues)}
    )
    with pytest.raises(SettingsError, match=r"catalogue sw"):
        create_app(settings)


def test_default_language_without_a_catalogue(make_settings, sqlite_url):
    """Case L129."""
    settings = make_settings(database={"url": sqlite_url}, g2p={"default_language": "sw"})
    with pytest.raises(SettingsError, match=r"g2p\.default_language"):
        create_app(settings)
