from datetime import UTC, datetime, timedelta

import pytest

from authz_server.errors import InvalidChangeError, NotFoundError
from authz_server.operations.clients import create_client
from authz_server.operations.revocation import plan_cut_off, revoke_tokens
from keys.errors import OrderRefusedError


@pytest.fixture
def subjects(operator):
    """An operator with a client."""
    create_client(
        operator.services,
        actor=operator.actor,
        id="ministry",
        name="Ministry",
        allowed_scopes=["mapper/link"],
        with_secret=False,
    )
    return operator


def test_a_plan_names_the_subject_and_changes_nothing(subjects):
    """A scope is named in any spelling; the plan has the canonical one."""
    before = subjects.records()
    planned = plan_cut_off(subjects.services, "scope", "mapper.link")
    assert (planned.kind, planned.subject, planned.issued_up_to) == ("scope", "mapper/link", None)
    assert subjects.records() == before


def test_revoking_returns_and_records_what_was_revoked(subjects):
    """Without a time, it is everything issued until now."""
    started = datetime.now(UTC)
    done = revoke_tokens(
        subjects.services, "client", "ministry", actor=subjects.actor, reason="a test"
    )
    assert (done.kind, done.subject) == ("client", "ministry")
    assert started <= done.issued_up_to <= datetime.now(UTC) + timedelta(seconds=5)
    assert subjects.records()[-1] == (subjects.actor, "cut_off.recorded", "client:ministry")


@pytest.mark.parametrize(
    ("kind", "subject", "error"),
    [
        ("client", "nobody", NotFoundError),
        ("scope", "land/read", NotFoundError),
        ("key", "no-such-key", OrderRefusedError),
    ],
)
def test_an_unknown_subject_is_refused_by_plan_and_act(subjects, kind, subject, error):
    """Neither records anything."""
    before = subjects.records()
    with pytest.raises(error):
        plan_cut_off(subjects.services, kind, subject)
    with pytest.raises(error):
        revoke_tokens(subjects.services, kind, subject, actor=subjects.actor)
    assert subjects.records() == before


def test_tokens_of_the_future_cannot_be_revoked(subjects):
    """The act refuses it as the plan does, for a caller that makes no plan."""
    later = datetime.now(UTC) + timedelta(hours=1)
    with pytest.raises(InvalidChangeError, match="future"):
        plan_cut_off(subjects.services, "all", before=later)
    with pytest.raises(InvalidChangeError, match="future"):
        revoke_tokens(subjects.services, "all", actor=subjects.actor, before=later)
