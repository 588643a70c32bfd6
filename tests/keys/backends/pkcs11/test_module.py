"""Sessions that are opened, renewed and left alone, by a module that records its calls."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from pkcs11 import exceptions as p11

from keys.backends.pkcs11 import module as pkcs11_module
from keys.backends.pkcs11.module import Module
from keys.backends.pkcs11.uri import TokenLocation
from keys.errors import BackendDenied, BackendUnavailable


class Library:
    """A PKCS#11 module with one token; `asked` holds what it was told to do."""

    def __init__(self, *, notices_forks=False):
        self.asked = []
        self.absent = False
        self._notices_forks = notices_forks

    def initialize(self):
        self.asked.append("initialize")

    def finalize(self):
        self.asked.append("finalize")
        if self._notices_forks:
            raise p11.PKCS11Error("not initialized")

    def reinitialize(self):
        self.asked.append("reinitialize")

    def get_tokens(self, token_label):
        self.asked.append("look")
        return [] if self.absent else [Token(self, token_label)]


class Token:
    manufacturer_id = model = ""
    serial = b""
    slot = SimpleNamespace(get_mechanisms=set)

    def __init__(self, library, label):
        self._library = library
        self.label = label

    def open(self, *, rw=False, user_pin=None):
        assert (rw, user_pin) == (True, "1234")
        self._library.asked.append("open")
        return SimpleNamespace(close=lambda: self._library.asked.append("close"))


@pytest.fixture
def location(tmp_path):
    pin_file = tmp_path / "pin"
    pin_file.write_text("1234\n")
    pin_file.chmod(0o600)
    return TokenLocation(
        module=Path("/hsm.so"),
        token="token",
        serial=None,
        manufacturer=None,
        model=None,
        pin_file=pin_file,
    )


@pytest.fixture(params=[True, False], ids=["notices forks", "notices nothing"])
def library(request, monkeypatch):
    library = Library(notices_forks=request.param)
    monkeypatch.setattr(pkcs11_module.pkcs11, "lib", lambda _path: library)
    return library


@pytest.fixture
def module(library):
    assert library.asked == []
    return Module(Path("/hsm.so"))


def failing(*errors):
    """A piece of work that fails once with each of `errors`, then is done."""
    left = list(errors)

    def work(_token):
        if left:
            raise left.pop(0)
        return "done"

    return work


def test_one_session_does_all_the_work(module, library, location):
    assert [module.run(location, failing()) for _ in range(3)] == ["done"] * 3
    assert library.asked == ["look", "open"]


def test_a_child_initialises_the_module_and_logs_in_for_itself(module, library, location):
    module.run(location, failing())
    library.asked.clear()
    module.reset_after_fork()
    assert module.run(location, failing()) == "done"
    assert library.asked == ["finalize", "initialize", "look", "open"]
    module.run(location, failing())
    assert library.asked == ["finalize", "initialize", "look", "open"]


def test_a_lost_session_is_replaced_once_for_each_call(module, library, location):
    module.run(location, failing())
    library.asked.clear()
    assert module.run(location, failing(p11.SessionHandleInvalid())) == "done"
    assert library.asked == ["close", "look", "open"]
    twice = failing(p11.DeviceRemoved(), p11.DeviceRemoved())
    with pytest.raises(BackendUnavailable, match="DeviceRemoved"):
        module.run(location, twice)


@pytest.mark.parametrize("error", [p11.MechanismInvalid, p11.PinLocked, p11.TokenWriteProtected])
def test_a_refusal_is_final(module, library, location, error):
    module.run(location, failing())
    library.asked.clear()
    with pytest.raises(BackendDenied, match=error.__name__):
        module.run(location, failing(error()))
    assert library.asked == []


def test_a_token_that_is_away_is_looked_for_once_a_second(module, library, location, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(pkcs11_module, "monotonic", lambda: now[0])
    library.absent = True
    for _ in range(5):
        with pytest.raises(BackendUnavailable) as caught:
            module.run(location, failing())
    assert caught.value.retry_after == 1
    assert library.asked == ["look", "reinitialize", "look"]
    library.absent, now[0] = False, 101.0
    assert module.run(location, failing()) == "done"


def test_whoever_waits_too_long_for_the_module_is_told(module, location, monkeypatch):
    monkeypatch.setattr(pkcs11_module, "LOCK_SECONDS", 0.01)

    def work(_token):
        with pytest.raises(BackendUnavailable, match="busy"):
            module.run(location, failing())
        return "done"

    assert module.run(location, work) == "done"
