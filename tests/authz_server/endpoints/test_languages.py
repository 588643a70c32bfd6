"""Messages in the caller's language, whatever its header says."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz_server.endpoints.languages import MessageCatalogue
from authz_server.errors import REASONS

CATALOGUE = MessageCatalogue("en", "")
LANGUAGES = ("en", "es", "fr", "pt")

quality = st.sampled_from(["", ";q=0", ";q=0.5", ";q=1", ";q=1.0000", ";q=nan", "; q=0.7", ";x=1"])
tag = st.sampled_from(["fr", "FR", "pt-BR", "es-419-x", "de", "*", "en-GB", "", "-", "fr_CA", "zh"])
headers = st.one_of(
    st.text(max_size=300),
    st.lists(st.tuples(tag, quality).map("".join), max_size=12).map(",".join),
)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_reason_has_its_own_message_in_every_language(language):
    for reason in REASONS:
        picked, message = CATALOGUE.message(reason, language)
        assert picked == language
        assert message.strip() == message != ""
        assert (message == REASONS[reason].description) == (language == "en")


def test_messages_name_the_same_parameters_in_every_language():
    names = re.compile(r"timestamp|message_id|application/[a-z-]+|UTF-8")
    for reason, entry in REASONS.items():
        for language in LANGUAGES:
            message = CATALOGUE.message(reason, language)[1]
            assert set(names.findall(message)) >= set(names.findall(entry.description)), reason


@given(headers)
def test_any_header_gets_a_message_in_a_known_language(header):
    language, message = CATALOGUE.message("parameter_missing", header)
    assert language in CATALOGUE.languages
    assert message == CATALOGUE.message("parameter_missing", language)[1]


@pytest.mark.parametrize(
    ("header", "language"),
    [
        (None, "en"),
        ("", "en"),
        ("fr", "fr"),
        ("FR-ca", "fr"),
        ("pt-BR, en;q=0.5", "pt"),
        ("de, es;q=0.3", "es"),
        ("en;q=0.1, fr;q=0.9", "fr"),
        ("fr;q=0, es", "es"),
        ("fr;q=2, es;q=0.1", "es"),
        ("de", "en"),
        ("*", "en"),
        ("es-419;q=0.8, fr;q=0.8", "es"),
        ("x" * 300 + ", fr", "en"),
    ],
)
def test_the_preferred_language_that_is_known_is_picked(header, language):
    assert CATALOGUE.message("throttled", header)[0] == language


def test_the_default_is_a_choice():
    assert MessageCatalogue("pt", "").message("throttled", "de")[0] == "pt"


def test_a_directory_adds_languages_and_replaces_sentences(tmp_path):
    (tmp_path / "sw.toml").write_text('throttled = "Subiri kidogo."\n')
    # With an editor's byte order mark, as some save it. Case R243.
    (tmp_path / "FR.toml").write_text('throttled = "Patientez."\n', encoding="utf-8-sig")
    catalogue = MessageCatalogue("sw", str(tmp_path))
    assert catalogue.message("throttled", None) == ("sw", "Subiri kidogo.")
    assert catalogue.message("throttled", "fr") == ("fr", "Patientez.")
    assert catalogue.message("not_found", "fr")[0] == "fr"
    # What a catalogue lacks is said in English, and the answer says so.
    assert catalogue.message("not_found", "sw") == ("en", REASONS["not_found"].description)


@pytest.mark.parametrize("text", ['invented = "x"\n', "throttled = 7\n", "throttled ="])
def test_a_catalogue_that_cannot_be_used_is_refused(tmp_path, text):
    (tmp_path / "sw.toml").write_text(text)
    with pytest.raises(ValueError, match=r".+"):
        MessageCatalogue("en", str(tmp_path))


def test_a_default_without_catalogue_is_refused():
    with pytest.raises(ValueError, match=r"g2p\.default_language"):
        MessageCatalogue("sw", "")
