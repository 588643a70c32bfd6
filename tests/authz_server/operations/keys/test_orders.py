"""Orders and ticks as operations: values in, frozen structs out."""

from dataclasses import asdict, fields, replace
from datetime import timedelta

import pytest
from sqlalchemy import select

from authz_server.audit.models import AuditRecord
from authz_server.operations.keys.first_keys import create_first_keys
from authz_server.operations.keys.list import list_keys
from authz_server.operations.keys.local_checks import examine_installation
from authz_server.operations.keys.orders import apply_order, tick_ring
from authz_server.operations.keys.results import (
    BackendStep,
    OrderResult,
    RotationResult,
    WithdrawalResult,
)
from authz_server.operations.keys.status import report_ring
from keys.errors import OrderRefusedError
from keys.lifecycle.orders import Activate, Freeze, Prune, Revoke, Rotate, Taint, Unfreeze
from keys.signing_key import RingDefinition
from keys.store import RingChange

REASON = "a drill"


def active(context):
    (key,) = (key for key in list_keys(context.services) if key.signs)
    return key


def standby(context):
    (key,) = (key for key in list_keys(context.services) if key.state == "published")
    return key


def test_the_first_keys_are_made_once(open_keys):
    with open_keys() as context:
        (planned,) = create_first_keys(context, dry_run=True)
        assert list_keys(context.services) == ()
        (made,) = create_first_keys(context)
        (again,) = create_first_keys(context, "es256")
        keys = list_keys(context.services)
    assert (planned.written, planned.sentence) == (
        False,
        "2 keys are to be made at sql://; 0 are there.",
    )
    assert (made.written, made.sentence) == (True, "has its first keys.")
    assert (again.written, again.sentence) == (False, "has keys already.")
    assert [(key.version, key.state, key.signs) for key in keys] == [
        (1, "active", True),
        (2, "published", False),
    ]


def test_one_missing_key_is_one_key(open_keys):
    """A backend may have a version that the ring has not adopted."""
    with open_keys() as context:
        context.backends["sql://"].create("es256", "ES256")
        (planned,) = create_first_keys(context, dry_run=True)
    assert planned.sentence == "1 key is to be made at sql://; 1 is there."


def test_a_rotation_returns_the_version_and_who_knows_the_key_that_signs_next(keyed):
    with keyed() as context:
        next_key = standby(context)
        result = apply_order(context, Rotate("es256", REASON))
    assert isinstance(result, RotationResult)
    assert (result.command, result.written, result.created.version) == ("rotate", True, 3)
    assert (result.readers.kid, result.readers.seen) == (next_key.kid, 0)
    assert {change.kid for change in result.changes} >= {next_key.kid, result.created.kid}


def test_a_plan_changes_nothing_and_names_the_steps_at_the_backend(keyed):
    with keyed(looking=True) as context:
        before = context.get_ring("es256")
        result = apply_order(context, Rotate("es256", REASON), dry_run=True)
        assert context.get_ring("es256") == before
    assert (result.dry_run, result.written, result.created) == (True, False, None)
    assert result.at_backend == (BackendStep("create", None),)


@pytest.mark.parametrize(("order", "state"), [(Taint, "tainted"), (Revoke, "revoked")])
def test_a_withdrawal_returns_the_tokens_that_it_affects(keyed, order, state):
    with keyed() as context:
        kid = active(context).kid
        result = apply_order(context, order(kid, REASON))
        bound = result.impact.no_token_lives_after - context.now()
        states = {key.kid: key.state for key in list_keys(context.services)}
    assert isinstance(result, WithdrawalResult)
    assert states[kid] == state
    assert (result.impact.tokens, result.impact.clients) == (0, ())
    assert timedelta(0) < bound <= timedelta(days=1)


def test_the_steps_of_a_revocation_are_recorded_with_their_times(keyed):
    with keyed() as context:
        kid = active(context).kid
        apply_order(context, Revoke(kid, REASON), dry_run=True)
        apply_order(context, Revoke(kid, REASON))
        columns = (AuditRecord.actor, AuditRecord.subject)
        timed = select(*columns).where(AuditRecord.action == "key.revocation_timed")
        with context.services.database.reading() as session:
            records = [tuple(row) for row in session.execute(timed)]
    assert records == [("operator:ada", kid)]


def test_a_revocation_of_all_versions_counts_the_tokens_of_every_key(keyed):
    with keyed() as context:
        kid = standby(context).kid
        one = apply_order(context, Revoke(kid, REASON), dry_run=True)
        every = apply_order(context, Revoke(kid, REASON, all_versions=True), dry_run=True)
    assert one.impact.no_token_lives_after is None, "the standby has signed nothing"
    assert every.impact.no_token_lives_after is not None


def test_an_order_that_the_ring_does_not_permit_is_refused(keyed):
    with keyed() as context:
        apply_order(context, Freeze("es256", REASON))
        with pytest.raises(OrderRefusedError, match="frozen already"):
            apply_order(context, Freeze("es256", REASON))
        with pytest.raises(OrderRefusedError, match="is frozen"):
            apply_order(context, Activate(standby(context).kid, REASON, emergency=True))
        assert apply_order(context, Unfreeze("es256", REASON)).written
        with pytest.raises(OrderRefusedError, match="there is no ring"):
            apply_order(context, Prune("other"))
        with pytest.raises(OrderRefusedError, match="no ring has a key"):
            apply_order(context, Taint("unknown", REASON))


def test_a_tick_with_nothing_left_to_do_writes_nothing(keyed):
    with keyed("tick") as context:
        first, second = tick_ring(context, "es256"), tick_ring(context, "es256")
    assert type(first) is OrderResult
    assert (first.command, first.written, second.written) == ("tick", True, False)
    assert second.changes == ()


def test_the_status_of_a_ring_whose_successor_cannot_sign_yet_is_that_of_one_that_signs(keyed):
    with keyed("tick", looking=True) as context:
        store, ring = context.services.key_store, context.get_ring("es256")
        names = [each.name for each in fields(RingDefinition)]
        definition = RingDefinition(**{each: getattr(ring, each) for each in names})
        store.add_ring(replace(definition, name="held"))
        left = replace(ring, successor="held", succeeded_at=context.now() - timedelta(hours=1))
        moved = RingChange(
            ring=left, event="ring.succeeded", actor="a", reason=REASON, at=context.now()
        )
        assert store.change_ring("es256", ring.epoch, [], moved)
        report = report_ring(context, context.get_ring("es256"), context.rings())
        findings = examine_installation(context)
        standing = {each.check for each in findings if each.subject == "es256"}
    assert report.status.next is not None
    assert [row.signs for row in report.calendar.rows] == [True, False]
    assert "ring.standby" in standing, "and not ring.successor"


def test_the_status_names_the_key_that_signs_and_what_is_due(keyed):
    with keyed("tick", looking=True) as context:
        report = report_ring(context, context.get_ring("es256"), context.rings())
        signing, next_key = active(context), standby(context)
    status = report.status
    assert (status.active.kid, status.next.kid) == (signing.kid, next_key.kid)
    assert (status.at_backend.usable, status.at_backend.latest_version) == (True, 2)
    assert any(next_key.kid in each for each in status.due)
    assert status.events.verified
    assert [row.key.kid for row in report.calendar.rows] == [signing.kid, next_key.kid]


def test_a_result_has_the_members_of_the_documented_json(keyed):
    with keyed() as context:
        result = apply_order(context, Freeze("es256", REASON))
    assert [*asdict(result)] == [
        *("command", "ring", "epoch", "at", "dry_run", "written", "changes", "at_backend"),
        *("created", "fenced", "waits", "alarms", "failures", "seconds"),
    ]
