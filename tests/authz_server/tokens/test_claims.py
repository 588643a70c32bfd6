"""Token ids: never the same twice, and the instant in them is read back."""

import os
from base64 import urlsafe_b64decode

from hypothesis import given
from hypothesis import strategies as st

from authz_server.tokens.claims import (
    JTI_CHARACTERS,
    AccessTokenClaims,
    new_jti,
    read_instant,
)

NOW = 1_900_000_000_123_456


def claims_of(**members):
    usual = {"iss": "i", "sub": "s", "client_id": "c", "aud": "a", "iat": 1, "exp": 2}
    return AccessTokenClaims(**usual | {"jti": "j", "scope": "x"} | members)


def test_ids_of_one_instant_differ():
    """Case C32"""
    ids = {new_jti(NOW) for _ in range(100_000)}
    assert len(ids) == 100_000
    assert {len(each) for each in ids} == {JTI_CHARACTERS}


def test_an_id_holds_at_least_128_random_bits():
    """Case C32"""
    random_parts = [urlsafe_b64decode(new_jti(NOW))[7:] for _ in range(4_096)]
    assert {len(part) * 8 for part in random_parts} == {136}
    for bit in range(136):
        ones = sum(int.from_bytes(part, "big") >> bit & 1 for part in random_parts)
        # Seven standard deviations: 1 in 10^9 for all bits together.
        assert abs(ones - 2_048) < 7 * 32, bit


def test_forked_children_never_repeat_their_parent_or_each_other():
    """Case C32"""
    new_jti(NOW)
    pipes = []
    for _ in range(4):
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            with os.fdopen(write_end, "w") as output:
                output.write("\n".join(new_jti(NOW) for _ in range(1_000)))
            os._exit(0)
        os.close(write_end)
        pipes.append((child, read_end))
    ids = [new_jti(NOW) for _ in range(1_000)]
    for child, read_end in pipes:
        with os.fdopen(read_end) as source:
            ids += source.read().split("\n")
        assert os.waitpid(child, 0)[1] == 0
    assert len(ids) == len(set(ids)) == 5_000


@given(st.integers(0, 2**56 - 1))
def test_the_instant_is_read_back(microseconds):
    """Case F72"""
    jti = new_jti(microseconds)
    assert len(jti) == JTI_CHARACTERS
    assert read_instant(jti, microseconds // 1_000_000) == microseconds


@given(first=st.integers(0, 2**56 - 1), second=st.integers(0, 2**56 - 1))
def test_bytes_of_ids_sort_by_their_instant(first, second):
    if first != second:
        ids = [urlsafe_b64decode(new_jti(instant)) for instant in (first, second)]
        assert (ids[0] < ids[1]) == (first < second)


@given(jti=st.text(max_size=80), iat=st.integers(-(2**70), 2**70))
def test_an_id_of_any_text_gives_an_instant_within_its_second(jti, iat):
    """Case D46, D47"""
    instant = read_instant(jti, iat)
    assert instant // 1_000_000 == iat


@given(st.integers(0, 2**56 - 1), st.integers(0, 2**34))
def test_an_id_that_contradicts_iat_counts_from_the_start_of_the_second(microseconds, iat):
    """Case F72: a cut-off rather takes a token too many."""
    instant = read_instant(new_jti(microseconds), iat)
    expected = microseconds if microseconds // 1_000_000 == iat else iat * 1_000_000
    assert instant == expected
    assert claims_of(jti=new_jti(microseconds), iat=iat).issued_at_microseconds == instant


def test_an_audience_is_one_or_several():
    assert claims_of(aud="a").audience == ("a",)
    assert claims_of(aud=("a", "b")).audience == ("a", "b")


@given(st.text(max_size=70))
def test_only_ids_that_fit_a_database_and_a_log_are_sound(jti):
    """Case D47, K123"""
    sound = claims_of(jti=jti).is_sound()
    fits = bool(jti) and len(jti) <= 64 and jti.isascii()
    assert sound == (fits and all(each.isalnum() or each in "-_" for each in jti))
