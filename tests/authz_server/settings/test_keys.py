"""[keys] and [keys.rings]: durations that cannot break a verifier, places that are apart."""

from datetime import UTC, datetime, timedelta

import pytest

from authz_server.settings import LONGEST_LIFETIME_SECONDS, KeySettings, RingSettings
from keys.lifecycle.timing import Timing
from support.minimal_settings import MINIMAL, load, refusal

VAULTS = """
[keys.vaults.main]
addresses = ["https://a.example"]
login = { method = "token", token_file = "t" }
[keys.vaults.second]
addresses = ["https://b.example"]
login = { method = "token", token_file = "t" }
"""
FAST = """
jwks_maximum_age_seconds = 1
refresh_interval_seconds = 1
clock_tolerance_seconds = 1
snapshot_lifetime_seconds = 3
[keys.rings.es256]
prepublication_seconds = 5
rotation_interval_seconds = 6
"""
RING = "[keys.rings.es256]\n"


def of_keys(more):
    """Return the minimal file with `more` in its table of keys, which is the last one."""
    return f"{MINIMAL}\n{more}"


def without_encryption_key(more):
    return of_keys(more).replace("key_encryption_key", "# key_encryption_key")


def test_the_defaults_are_those_of_the_timing(tmp_path):
    keys = load(tmp_path).keys
    assert keys.timing() == Timing()
    assert {keys.prepublication_seconds(name) for name in keys.rings} == {86_400}
    assert keys.rings["es256"] == RingSettings()
    assert keys.rings["es256"].drive == "self"


@pytest.mark.parametrize(
    ("maximum_age", "written", "seconds"),
    [(900, 0, 86_400), (21_600, 0, 86_400), (30_000, 0, 120_000), (900, 920, 920)],
)
def test_pre_publication_is_a_day_or_four_times_the_maximum_age(
    tmp_path, maximum_age, written, seconds
):
    text = of_keys(f"jwks_maximum_age_seconds = {maximum_age}\n{RING}")
    keys = load(tmp_path, text=f"{text}prepublication_seconds = {written}").keys
    assert keys.prepublication_seconds("es256") == seconds


def test_a_demonstration_may_run_on_a_fast_clock(tmp_path):
    keys = load(tmp_path, text=of_keys(FAST)).keys
    timing = keys.timing()
    assert timing.minimum_prepublication_seconds == keys.prepublication_seconds("es256") == 5
    # An emergency never makes the key set live longer than usual.
    assert timing.cautious_jwks_maximum_age_seconds == 1


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (("prepublication_seconds = 5", "prepublication_seconds = 4"), "prepublication_seconds"),
        (("clock_tolerance_seconds = 1", "clock_tolerance_seconds = 2"), "prepublication_seconds"),
        (("refresh_interval_seconds = 1", ""), "refresh_interval_seconds"),
        (("refresh_interval_seconds = 1", "refresh_interval_seconds = 2"), "prepublication"),
        (("rotation_interval_seconds = 6", "rotation_interval_seconds = 4"), "rotation_interval"),
        (("prepublication_seconds = 5", ""), "rotation_interval_seconds"),
        (("snapshot_lifetime_seconds = 3", "snapshot_lifetime_seconds = 1"), "snapshot_lifetime"),
        (("clock_tolerance_seconds = 1", "clock_tolerance_seconds = 0"), "clock_tolerance"),
    ],
)
def test_durations_that_contradict_each_other_are_refused(tmp_path, change, key):
    """Case G75, Case L129."""
    error = refusal(tmp_path, text=of_keys(FAST.replace(*change)))
    assert error.key.rpartition(".")[2].startswith(key)


def test_a_key_outlives_every_token_that_the_settings_permit(tmp_path):
    """Case G76."""
    # The longest lifetime and the widest skew that can be set at all.
    limits = "[tokens]\nmaximum_lifetime_seconds = {}\nclock_skew_seconds = 60"
    tokens = load(tmp_path, more=limits.format(LONGEST_LIFETIME_SECONDS)).tokens
    timing = load(tmp_path, text=of_keys(FAST)).keys.timing()
    stopped = datetime(2030, 1, 1, tzinfo=UTC)
    last = timedelta(seconds=tokens.maximum_lifetime_seconds + tokens.clock_skew_seconds)
    for fenced in (stopped, None):
        assert timing.remove_after(LONGEST_LIFETIME_SECONDS, stopped, fenced) >= stopped + last
    longer = limits.format(LONGEST_LIFETIME_SECONDS + 1)
    assert refusal(tmp_path, more=longer).key == "tokens.maximum_lifetime_seconds"
    retention = refusal(tmp_path, text=of_keys("retention_seconds = 60"))
    assert (retention.key, retention.problem) == ("keys.retention_seconds", "there is no such key")


@pytest.mark.parametrize("backend", ["sql://", "file://keys.json"])
def test_keys_that_are_kept_here_need_the_key_that_encrypts_them(tmp_path, backend):
    """Case L129."""
    text = without_encryption_key(f"{RING}backend = '{backend}'")
    error = refusal(tmp_path, text=text)
    assert (error.key, error.problem) == ("keys.key_encryption_key", "must be set")
    assert "es256" in error.remedy


@pytest.mark.parametrize(
    "backend",
    ["transit://transit/oidc", "kv://secret/keys?vault=second", "pkcs11:token=t;object=o"],
)
def test_keys_that_are_kept_elsewhere_need_none(tmp_path, backend):
    text = without_encryption_key(f"{RING}backend = '{backend}'")
    settings = load(tmp_path, text=text, more=VAULTS, environ={})
    assert settings.keys.key_encryption_key is None


@pytest.mark.parametrize(
    ("one", "two", "apart"),
    [
        ("sql://", "sql://", True),
        ("file:///keys", "file:///keys", True),
        ("transit://transit/a", "transit://transit/b", True),
        ("transit://transit/a", "transit://transit/a?vault=second", True),
        ("transit://transit/a", "kv://transit/a", True),
        ("transit://transit/a", "transit://transit/a", False),
        ("transit://transit/a", "transit://transit/a?vault=main", False),
        ("transit://transit/a", "transit://transit/a?allow_exportable=true", False),
        ("kv://secret/a/b", "kv://secret/a/b", False),
        ("pkcs11:object=a", "pkcs11:object=a", False),
    ],
)
def test_two_rings_never_have_the_same_keys(tmp_path, one, two, apart):
    """Case L129."""
    rings = f"{RING}backend = '{one}'\n[keys.rings.other]\nbackend = '{two}'"
    if apart:
        assert len(load(tmp_path, text=of_keys(rings), more=VAULTS).keys.rings) == 2
    else:
        error = refusal(tmp_path, text=of_keys(rings), more=VAULTS)
        assert error.key == "keys.rings.other.backend"


@pytest.mark.parametrize(
    "backend",
    [
        "transit://transit",
        "transit://transit/",
        "transit:///key",
        "transit://transit//key",
        "transit://transit/key?name=main",
        "transit://transit/key?vault=",
        "transit://transit/key#x",
        "kv://secret",
        "kv://secret/a?allow_exportable=true",
        "kv:secret/a",
        "transit://transit/key?vault=absent",
        "pkcs11:",
        "pkcs11:object=o?pin-value=1234",
        "sql:",
        "sql://a b",
        f"sql://{'a' * 500}",
    ],
)
def test_what_names_no_keys_is_refused(tmp_path, backend):
    """Case L129."""
    error = refusal(tmp_path, text=of_keys(f"{RING}backend = '{backend}'"), more=VAULTS)
    assert error.key == "keys.rings.es256.backend"
    assert "1234" not in str(error)


def test_a_key_file_is_relative_to_the_settings_file(tmp_path):
    rings = f"{RING}backend = 'file://keys/es256.json'\n[keys.rings.b]\nbackend = 'file:///k'"
    keys = load(tmp_path, text=of_keys(rings)).keys
    assert keys.rings["es256"].backend == f"file://{tmp_path}/keys/es256.json"
    assert keys.rings["b"].backend == "file:///k"


@pytest.mark.parametrize("algorithm", ["ML-DSA-44", "ML-DSA-65", "ML-DSA-87"])
def test_an_algorithm_that_few_know_has_to_be_switched_on(tmp_path, algorithm):
    """Case L129."""
    ring = f"{RING}algorithm = '{algorithm}'"
    error = refusal(tmp_path, text=of_keys(ring))
    assert error.key == "keys.rings.es256.algorithm"
    assert "experimental_algorithms" in error.remedy
    assert load(tmp_path, text=of_keys(f"experimental_algorithms = true\n{ring}"))


def test_words_of_a_fixed_list_are_told(tmp_path):
    error = refusal(tmp_path, text=of_keys(f"{RING}drive = 'vault'"))
    assert error.key == "keys.rings.es256.drive"
    assert error.remedy == "Use one of self, rotator, follow."
    assert refusal(tmp_path, text=of_keys("activation_gate = 'on'")).key == "keys.activation_gate"


def test_settings_built_by_hand_keep_the_same_rules():
    with pytest.raises(ValueError, match="key_encryption_key"):
        KeySettings()
    with pytest.raises(ValueError, match="algorithm"):
        RingSettings(algorithm="HS256")
