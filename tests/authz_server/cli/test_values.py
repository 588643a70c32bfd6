from datetime import UTC, datetime, timedelta

import click
import pytest

from authz_server.cli.values import (
    INSTANT,
    INSTANT_OR_NONE,
    PAST_INSTANT,
    PROPERTY,
    drop_unset,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2030-01-31T12:00:00Z", datetime(2030, 1, 31, 12, tzinfo=UTC)),
        ("2030-01-31T12:00:00+02:00", datetime(2030, 1, 31, 10, tzinfo=UTC)),
        ("2030-01-31", datetime(2030, 1, 31, tzinfo=UTC)),
    ],
)
def test_times_are_read_with_their_zone(text, expected):
    assert INSTANT.convert(text, None, None) == expected


@pytest.mark.parametrize(
    ("text", "delta"),
    [("now", timedelta()), ("+90s", timedelta(seconds=90)), ("+30d", timedelta(days=30))],
)
def test_times_may_be_relative(text, delta):
    distance = INSTANT.convert(text, None, None) - datetime.now(UTC) - delta
    assert abs(distance) < timedelta(seconds=5)


@pytest.mark.parametrize(
    "text",
    [
        *("", "soon", "2030-01-31T12:00:00", "+30", "+-3d", "2030-13-01", "+999999d9", "1e400"),
        *("0001-01-01", "1969-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00"),
    ],
)
def test_other_texts_are_refused_with_an_example(text):
    with pytest.raises(click.BadParameter, match="2030-01-31T12:00:00Z"):
        INSTANT.convert(text, None, None)


def test_a_time_long_ago_is_the_beginning_of_all_records():
    assert PAST_INSTANT.convert("-999999d", None, None) == datetime(1970, 1, 1, tzinfo=UTC)
    hour = datetime.now(UTC) - PAST_INSTANT.convert("-1h", None, None)
    assert abs(hour - timedelta(hours=1)) < timedelta(seconds=5)


def test_the_word_none_takes_a_limit_away():
    assert INSTANT_OR_NONE.convert("none", None, None) == "none"
    options = {"expires_at": "none", "name": None, "allowed_scopes": (), "permissions": ("none",)}
    assert drop_unset(options) == {"expires_at": None, "permissions": ["none"]}
    assert drop_unset(options, texts=["expires_at"])["expires_at"] == "none"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("none", None),
        ("true", True),
        ('{"per":"day","tokens":5}', {"per": "day", "tokens": 5}),
        ('["10.0.0.0/8"]', ["10.0.0.0/8"]),
        (" mapper ", "mapper"),
        # What could be read in two ways stays text, which its rule refuses.
        ('{"tokens":5,"tokens":6}', '{"tokens":5,"tokens":6}'),
        ('1,"other":2', '1,"other":2'),
        ("NaN", "NaN"),
        ("[" * 100_000, "[" * 100_000),
        ("\udcff", "\udcff"),
    ],
    ids=lambda value: ascii(value)[:24],
)
def test_a_property_is_json_or_text(text, value):
    assert PROPERTY.convert(f"name={text}", None, None) == ("name", value)
