"""An event reaches the receivers of its kind, in order, until one of them refuses."""

import pytest

from authz_server.audit.notifier import Notifier


def test_an_event_reaches_the_receivers_of_its_kind_in_order():
    received = []
    receivers = {
        int: (lambda event: received.append(("first", event)), received.append),
        str: (received.append,),
    }
    notify = Notifier(lambda kind: receivers.get(kind, ())).notify
    for event in (1, "text", 2.5):
        notify(event)
    assert received == [("first", 1), 1, "text"]


def test_receivers_are_found_once_for_each_kind():
    asked = []

    def find_receivers(kind):
        asked.append(kind)
        return ()

    notify = Notifier(find_receivers).notify
    assert not asked
    for event in (1, 2, "text", 3):
        notify(event)
    assert asked == [int, str]


def test_a_receiver_that_refuses_keeps_the_event_from_those_after_it():
    def refuse(_event):
        raise LookupError

    received = []
    notify = Notifier(lambda _kind: (refuse, received.append)).notify
    for _ in range(2):
        with pytest.raises(LookupError):
            notify(1)
    assert received == []


def test_receivers_that_cannot_be_opened_are_tried_again():
    faults = [LookupError()]
    received = []

    def find_receivers(_kind):
        if faults:
            raise faults.pop()
        return (received.append,)

    notify = Notifier(find_receivers).notify
    with pytest.raises(LookupError):
        notify(1)
    notify(2)
    assert received == [2]
