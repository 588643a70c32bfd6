"""The history checker itself: it must see what is wrong, and nothing else."""

import pytest

from support.history import Entry, History

ISSUED = Entry("issue", "t", 0, 1, "done")


def contradictions(*entries: Entry) -> list[str]:
    history = History()
    for entry in entries:
        history.add(entry)
    return history.contradictions()


@pytest.mark.parametrize(
    "entries",
    [
        [Entry("introspect", "t", 2, 3, "active")],
        [Entry("revoke", "t", 2, 4, "done"), Entry("introspect", "t", 5, 6, "inactive")],
        # At the same time: either answer can be true.
        [Entry("revoke", "t", 2, 4, "done"), Entry("introspect", "t", 3, 9, "active")],
        [Entry("revoke", "t", 2, 4, "done"), Entry("introspect", "t", 3, 3.5, "inactive")],
        # Nobody knows whether it was revoked.
        [Entry("revoke", "t", 2, 4, "perhaps"), Entry("introspect", "t", 5, 6, "active")],
        [Entry("revoke", "t", 2, 4, "perhaps"), Entry("introspect", "t", 5, 6, "inactive")],
        [Entry("revoke", "t", 2, 4, "done"), Entry("introspect", "t", 5, 6, "perhaps")],
        # Another token's revocation.
        [Entry("revoke", "u", 2, 4, "done"), Entry("introspect", "t", 5, 6, "active")],
    ],
)
def test_histories_that_can_be_true(entries):
    assert contradictions(ISSUED, *entries) == []


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (
            [Entry("revoke", "t", 2, 4, "done"), Entry("introspect", "t", 4.1, 6, "active")],
            "active after its revocation",
        ),
        (
            [
                Entry("revoke", "t", 2, 3, "perhaps"),
                Entry("introspect", "t", 4, 5, "inactive"),
                Entry("introspect", "t", 6, 7, "active"),
            ],
            "active after it had been inactive",
        ),
        ([Entry("introspect", "t", 2, 3, "inactive")], "inactive before anybody"),
        ([Entry("issue", "t", 2, 3, "done")], "issued 2 times"),
    ],
)
def test_histories_that_cannot_be_true(entries, words):
    (complaint,) = contradictions(ISSUED, *entries)
    assert words in complaint
