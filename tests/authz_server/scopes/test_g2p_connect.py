import csv
from collections import Counter
from pathlib import Path

import pytest

from authz_server.scopes.g2p_connect import CATALOGUE
from authz_server.scopes.names import require_scope_name

# What the three interface documents contain; nothing of the catalogue went into it.
_FILE = Path(__file__).parent / "g2p_connect_operations.csv"
OPERATIONS = list(csv.DictReader(_FILE.read_text().splitlines()))
SPELLINGS = {
    spelling: scope.name for scope in CATALOGUE for spelling in (scope.name, *scope.aliases)
}


def _expected_name(operation):
    interface, path = operation["interface"], operation["path"].strip("/")
    if path in {"disburse", "on-disburse"}:
        return f"disburse/{path}"
    return interface + path[path.index("/") :]


def test_there_is_one_scope_for_each_operation():
    assert Counter(scope.name for scope in CATALOGUE) == Counter(map(_expected_name, OPERATIONS))
    assert len(CATALOGUE) == len(OPERATIONS) == 35


def test_no_spelling_means_two_scopes():
    spellings = [spelling for scope in CATALOGUE for spelling in (scope.name, *scope.aliases)]
    assert [spelling for spelling, times in Counter(spellings).items() if times > 1] == []
    assert all(require_scope_name(spelling) == spelling for spelling in spellings)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        # the enumeration of the authorization interface
        ("disburse.disburse", "disburse/disburse"),
        ("disburse.on-disburse", "disburse/on-disburse"),
        ("disburse.status", "disburse/txn/status"),
        ("disburse.on-status", "disburse/txn/on-status"),
        ("mapper.link", "mapper/link"),
        ("mapper.unlink", "mapper/unlink"),
        ("mapper.update", "mapper/update"),
        ("mapper.on-update", "mapper/on-update"),
        ("mapper.resolve", "mapper/resolve"),
        ("mapper.on-resolve", "mapper/on-resolve"),
        ("mapper.status", "mapper/txn/status"),
        ("mapper.on-status", "mapper/txn/on-status"),
        ("registry.search", "registry/search"),
        ("registry.on-search", "registry/on-search"),
        ("registry.subscribe", "registry/subscribe"),
        ("registry.on-subscribe", "registry/on-subscribe"),
        ("registry.notify", "registry/notify"),
        # its examples
        ("disburse/disburse", "disburse/disburse"),
        ("disburse/on-disburse", "disburse/on-disburse"),
        ("mapper/link", "mapper/link"),
        ("mapper/on-link", "mapper/on-link"),
        ("registry/search", "registry/search"),
        ("registry/on-search", "registry/on-search"),
        # its prose
        ("disburse", "disburse/disburse"),
        ("on-disburse", "disburse/on-disburse"),
        ("disburse/status", "disburse/txn/status"),
        ("disburse/on-status", "disburse/txn/on-status"),
        ("mapper/unlink", "mapper/unlink"),
        # the synchronous operations
        ("registry.sync.search", "registry/sync/search"),
        ("mapper/sync/status", "mapper/sync/txn/status"),
    ],
)
def test_every_spelling_of_the_documents_is_known(spelling, name):
    assert SPELLINGS[spelling] == name


def test_callback_partners_point_at_each_other():
    by_name = {scope.name: scope for scope in CATALOGUE}
    paired = [scope for scope in CATALOGUE if scope.callback_partner]
    assert all(by_name[each.callback_partner].callback_partner == each.name for each in paired)
    alone = {scope.name for scope in CATALOGUE if not scope.callback_partner}
    assert alone == {n for n in by_name if "/sync/" in n} | {"registry/notify"}


def test_whatever_moves_money_says_so():
    money = {scope.name for scope in CATALOGUE if scope.risk == "money"}
    assert money == {"disburse/disburse", "disburse/sync/disburse"}
