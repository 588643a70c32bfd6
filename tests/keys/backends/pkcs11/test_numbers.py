"""Numbers on a token without compare-and-set: the makers' steps in any order, drawn by lot."""

import random
from threading import Event, Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keys.backends.pkcs11.numbers import (
    LONGEST_PAUSE_SECONDS,
    Register,
    draft_label,
    find_version,
    take_number,
    version_label,
)
from keys.errors import BackendUnavailable

LABEL = "ring"


class Token:
    """Labels that every maker sees at once; each step of a maker is announced first."""

    def __init__(self, step=lambda: None):
        self.labels = {}
        self._step = step

    def read(self):
        self._step()
        return [Register(label, key_id) for key_id, label in self.labels.items()]

    def write(self, key_id, label):
        self._step()
        if key_id not in self.labels:
            raise BackendUnavailable("gone", retry_after=1)
        self.labels[key_id] = label

    def delete(self, key_id):
        self._step()
        self.labels.pop(key_id, None)

    def numbers(self):
        return sorted(
            number
            for label in self.labels.values()
            if (number := find_version(LABEL, label)) is not None
        )


def run_interleaved(seed, makers):
    """Let `makers` take numbers at once, one step at a time in an order that `seed` decides.

    Returns the token and the number that each was given, by CKA_ID.
    """
    chance, token, taken = random.Random(seed), Token(), {}
    running = [_steps(token, bytes([index + 1]), taken) for index in range(makers)]
    while running:
        maker = chance.choice(running)
        if next(maker, "over") == "over":
            running.remove(maker)
    return token, taken


def _steps(token, key_id, taken):
    """Yield before each reading and writing of one maker, which runs in a thread of its own."""
    go, stopped, over = Event(), Event(), Event()

    def step():
        stopped.set()
        go.wait()
        go.clear()

    def work():
        view = Token(step)
        view.labels = token.labels
        try:
            taken[key_id] = take_number(view, LABEL, key_id, pause=lambda _seconds: None)
        finally:
            over.set()
            stopped.set()

    token.labels[key_id] = draft_label(LABEL)
    thread = Thread(target=work, daemon=True)
    thread.start()
    stopped.wait()
    while not over.is_set():
        yield
        stopped.clear()
        go.set()
        stopped.wait()
    thread.join()


@given(st.integers(0, 2**32), st.integers(2, 4))
@settings(max_examples=60)
def test_no_number_is_taken_twice_in_whatever_order(seed, makers):
    token, taken = run_interleaved(seed, makers)
    assert len(set(taken.values())) == makers
    assert sorted(taken.values()) == token.numbers()
    for key_id, number in taken.items():
        assert token.labels[key_id] == version_label(LABEL, number)


def test_a_maker_goes_on_from_the_highest_number():
    token = Token()
    token.labels = {
        b"a": "ring-7",
        b"b": "ring-x-9",
        b"c": "ring~3",
        b"d": "other-11",
        b"e": "ring~draft",
    }
    assert take_number(token, LABEL, b"e", pause=pytest.fail) == 8
    assert token.labels[b"e"] == "ring-8"


def test_the_claim_of_a_maker_that_died_leaves_a_gap():
    token = Token()
    token.labels = {b"a": "ring-1", b"b": "ring~2", b"c": draft_label(LABEL)}
    assert take_number(token, LABEL, b"c", pause=pytest.fail) == 3


def rival(token, label):
    """Have another maker write `label` right after the first claim of the maker `c`."""
    write, written = token.write, []

    def write_and_be_followed(key_id, text):
        write(key_id, text)
        if not written:
            written.append(text)
            token.labels[b"a"] = label

    token.write = write_and_be_followed


@pytest.mark.parametrize("label", ["ring~1", "ring-1"])
def test_a_number_that_another_key_has_or_claims_is_left_to_it(label):
    token, pauses = Token(), []
    token.labels = {b"c": draft_label(LABEL)}
    rival(token, label)
    assert take_number(token, LABEL, b"c", pause=pauses.append) == 2
    assert token.labels == {b"a": label, b"c": "ring-2"}
    assert len(pauses) == 1
    assert 0 <= pauses[0] <= LONGEST_PAUSE_SECONDS


def test_a_maker_whose_key_was_deleted_fails():
    token = Token()
    with pytest.raises(BackendUnavailable, match="gone"):
        take_number(token, LABEL, b"c", pause=pytest.fail)


def test_an_endless_race_ends():
    token = Token()
    token.labels = {b"c": draft_label(LABEL)}
    write = token.write

    def claim_it_too(key_id, label):
        write(key_id, label)
        token.labels[b"a"] = label

    token.write = claim_it_too
    with pytest.raises(BackendUnavailable, match="keep adding"):
        take_number(token, LABEL, b"c", pause=lambda _seconds: None)


@pytest.mark.parametrize(
    "text",
    ["ring-0", "ring-01", "ring-", "ring", "ring~1", "ring-1234567890", "ring-\u0661"],
)
def test_what_is_no_label_of_a_version(text):
    assert find_version(LABEL, text) is None
