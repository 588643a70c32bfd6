import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz_server.cli.keys.calendar_text import calendar_lines
from authz_server.operations.keys.calendar.axis import find_ticks
from authz_server.operations.keys.calendar.legend import MARKS
from authz_server.operations.keys.calendar.svg import render_svg
from keys.lifecycle.calendar import draw_calendar
from keys.lifecycle.timing import Timing
from keys.signing_key import KeyState, RingSnapshot, SigningKey

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
SVG = "{http://www.w3.org/2000/svg}"
#: The widths of the axis at a terminal and in a picture.
WIDTHS = (54, 102)
TEN_MINUTES, THREE_YEARS = timedelta(minutes=10), timedelta(days=3 * 365)


def days(count):
    return NOW + timedelta(days=count)


def kid(version):
    return f"{version:02}" + "k" * 41


def key(version, state, **times):
    return SigningKey(
        ring="es256",
        version=version,
        kid=kid(version),
        alg="ES256",
        public_jwk={},
        state=state,
        created_at=days(-99),
        **times,
    )


STOPPED = {"published_at": days(-9), "activate_at": days(-6), "stopped_at": days(-3)}
REVOKED = key(1, KeyState.REVOKED, revoked_at=days(-2), **STOPPED)
TAINTED = key(2, KeyState.TAINTED, remove_after=days(1), **STOPPED)
RETIRED = key(3, KeyState.RETIRED, remove_after=days(2), **STOPPED)
ACTIVE = key(4, KeyState.ACTIVE, published_at=days(-6), activate_at=days(-3))
STANDBY = key(5, KeyState.PUBLISHED, published_at=days(-1), activate_at=days(3))
ALL_KINDS = (REVOKED, TAINTED, RETIRED, ACTIVE, STANDBY)


def draw(*keys, **fields):
    ring = RingSnapshot(
        name="es256",
        alg="ES256",
        backend_uri="sql://",
        epoch=7,
        keys=keys,
        loaded_at=NOW,
        **fields,
    )
    return draw_calendar(ring, (ring,), Timing(), NOW)


def ticks_of(begins_at, span, width):
    """The ticks of a span, and the column of each."""

    def place(at):
        return (at - begins_at) / span * width

    ticks = find_ticks(begins_at, begins_at + span, place, width)
    return ticks, [place(tick.at) for tick in ticks]


spans = st.timedeltas(min_value=TEN_MINUTES, max_value=THREE_YEARS)
beginnings = st.datetimes(
    min_value=datetime(2024, 1, 1),  # noqa: DTZ001 - the zone is drawn apart
    max_value=datetime(2031, 1, 1),  # noqa: DTZ001 - likewise
    timezones=st.just(UTC),
)


@given(beginnings, spans, st.sampled_from(WIDTHS))
def test_labels_of_ticks_neither_overlap_nor_are_cut(begins_at, span, width):
    ticks, places = ticks_of(begins_at, span, width)
    assert len(ticks) >= 2
    for row in ("label", "day"):
        shown = [
            (place, getattr(tick, row))
            for place, tick in zip(places, ticks, strict=True)
            if getattr(tick, row)
        ]
        assert all(place + 1 + len(label) <= width for place, label in shown)
        assert all(
            later >= place + 1 + len(label) for (place, label), (later, _) in pairwise(shown)
        )


@given(beginnings, spans, st.sampled_from(WIDTHS))
def test_ticks_are_at_whole_moments_that_their_labels_name(begins_at, span, width):
    ticks, _ = ticks_of(begins_at, span, width)
    for tick in ticks:
        at, label = tick.at, tick.label
        assert begins_at < at < begins_at + span
        if re.fullmatch(r"\d\d:\d\d:\d\d", label):
            assert (label, at.microsecond, at.second % 5) == (f"{at:%H:%M:%S}", 0, 0)
        elif re.fullmatch(r"\d\d:\d\d", label):
            assert (label, at.second, at.microsecond) == (f"{at:%H:%M}", 0, 0)
        elif label:
            assert f"{at:%H:%M:%S.%f}" == "00:00:00.000000"
            assert label in {f"{at:%m-%d}", f"{at:%Y-%m}", f"{at:%Y}"}
            assert len(label) > len("01-31") or tick.day in {"", f"{at:%Y}"}
            assert at.day == 1 or label == f"{at:%m-%d}"


@given(
    beginnings,
    st.timedeltas(min_value=TEN_MINUTES, max_value=timedelta(days=4)),
    st.sampled_from(WIDTHS),
)
def test_the_day_is_named_where_times_of_day_stand_over_several_days(begins_at, span, width):
    ticks, _ = ticks_of(begins_at, span, width)
    named = ""
    for tick in ticks:
        named = tick.day or named
        if ":" in tick.label:
            assert named == f"{tick.at:%Y-%m-%d}"
    assert any(tick.label for tick in ticks)


@pytest.mark.parametrize(
    ("span", "step"),
    [
        ({"minutes": 10}, {"minutes": 1}),
        ({"hours": 2}, {"minutes": 10}),
        ({"days": 1}, {"hours": 2}),
        ({"days": 3}, {"hours": 6}),
        ({"days": 10}, {"days": 1}),
        ({"days": 60}, {"days": 7}),
        ({"days": 366}, {"days": 62}),
        ({"days": 1095}, {"days": 184}),
    ],
)
def test_the_steps_are_those_of_people(span, step):
    ticks, _ = ticks_of(days(0.01), timedelta(**span), 102)
    widest = max(later.at - tick.at for tick, later in pairwise(ticks))
    assert widest <= timedelta(**step)


def test_ticks_stand_at_their_time_at_a_terminal():
    calendar = draw(*ALL_KINDS)
    lines = [line.plain for line in calendar_lines(calendar)]
    axis = next(line for line in lines if "╷" in line)
    now = next(line for line in lines if line.endswith("signs"))
    tick = re.search(r"╷(\d\d-\d\d)", axis)
    at = datetime.strptime(f"2030-{tick[1]} +0000", "%Y-%m-%d %z")
    columns_a_day = 53 / ((calendar.ends_at - calendar.begins_at) / timedelta(days=1))
    expected = now.index("│") - columns_a_day * ((NOW - at) / timedelta(days=1))
    assert abs(tick.start() - expected) <= 1
    assert max(map(len, lines)) <= 80


def test_labels_in_a_picture_have_room_side_by_side():
    for span in (timedelta(minutes=15), timedelta(days=2), timedelta(days=40), THREE_YEARS):
        times = {"published_at": NOW - span, "activate_at": NOW - span}
        root = ET.fromstring(render_svg([draw(replace(ACTIVE, **times))]))  # noqa: S314 - our own
        width = float(root.get("width"))
        rows = {}
        for each in root.iter(f"{SVG}text"):
            if "tick" in each.get("class").split():
                rows.setdefault(each.get("y"), []).append((float(each.get("x")), each.text))
        assert rows
        for shown in rows.values():
            # A digit of this size is at most 7.5 wide.
            edges = [(left, left + 7.5 * len(label)) for left, label in shown]
            assert all(right <= width for _, right in edges)
            assert all(right <= left for (_, right), (left, _) in pairwise(edges))


def drawn(element):
    """The marks below an element: class, colours and pattern of each."""
    marks = set()
    for each in element.iter():
        shape = each.tag in {f"{SVG}rect", f"{SVG}line", f"{SVG}path"}
        if shape and each.get("class") not in {"paper", "rule", "slanting", "crossed"}:
            marks.add((each.get("class"), each.get("fill"), each.get("stroke")))
    return marks


def test_the_legend_of_a_picture_explains_every_mark():
    root = ET.fromstring(render_svg([draw(*ALL_KINDS)], "x-"))  # noqa: S314 - our own
    legend = root.find(f"{SVG}g[@class='legend']")
    explained, words = drawn(legend), [each.text for each in legend.iter(f"{SVG}text")]
    root.remove(legend)
    assert drawn(root) == explained
    assert {klass for klass, _, _ in explained} - {None} == {mark.name for mark in MARKS}
    for mark in MARKS:
        assert any(mark.look in each and mark.meaning in each for each in words)
    patterns = {each.get("id") for each in root.iter(f"{SVG}pattern")}
    used = {fill for klass, fill, _ in explained if klass is None}
    assert used == {f"url(#{name})" for name in patterns}


@pytest.mark.parametrize("plain", [False, True])
def test_the_legend_at_a_terminal_explains_every_sign(plain):
    calendar = draw(*ALL_KINDS)
    lines = [line.plain for line in calendar_lines(calendar, plain=plain)]
    (legend,) = (line for line in lines if "published  " in line)
    rows = [line[13:67] for line in lines if re.match(r"v\d", line)]
    assert len(rows) == 5
    signs = set("".join(rows)) - {" "}
    assert len(signs) == 6
    assert signs <= set(re.sub("[a-z]{2,}", "", legend))
    for mark in MARKS[:-1]:
        assert mark.word in legend


def test_looks_differ_in_more_than_their_colour():
    looks = [mark.look for mark in MARKS]
    shapes = [re.sub("blue|green|amber|purple|red", "", look).strip(", ") for look in looks]
    assert len(set(shapes)) == len(MARKS)


def test_a_picture_has_every_key_id_whole():
    root = ET.fromstring(render_svg([draw(*ALL_KINDS)]))  # noqa: S314 - our own
    words = {each.text for each in root.iter(f"{SVG}text")}
    titles = " ".join(each.text for each in root.iter(f"{SVG}title"))
    for each in ALL_KINDS:
        assert each.kid in words
        assert f"key id {each.kid}" in titles


@pytest.mark.parametrize("standalone", [True, False])
def test_a_page_has_the_name_of_a_ring_once(standalone):
    root = ET.fromstring(render_svg([draw(*ALL_KINDS)], legend=standalone))  # noqa: S314 - our own
    words = [element.text for element in root.iter(f"{SVG}text")]
    assert words.count("es256") == standalone


def test_an_id_without_room_is_whole_in_its_title():
    long = replace(ACTIVE, kid="x" * 64)
    root = ET.fromstring(render_svg([draw(long)]))  # noqa: S314 - our own
    assert "x" * 43 + "…" in {each.text for each in root.iter(f"{SVG}text")}
    assert f"version 4, key id {long.kid}" in {each.text for each in root.iter(f"{SVG}title")}


def test_a_change_beyond_the_edge_is_listed_as_such():
    calendar = draw(ACTIVE, cautious_until=days(400))
    text = render_svg([calendar])
    assert "verifiers may keep the JWKS longer again (beyond the right edge)" in text
    root = ET.fromstring(text)  # noqa: S314 - our own
    root.remove(root.find(f"{SVG}g[@class='legend']"))
    diamonds = [each for each in root.iter() if each.get("class") == "milestone"]
    assert len(diamonds) == 1, "beside its line in the list"
