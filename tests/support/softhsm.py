"""Tokens of SoftHSM 2: a PKCS#11 module in software, each test process with its own store."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from pkcs11 import Attribute, KeyType, Mechanism
from pkcs11.util.ec import encode_named_curve_parameters

from keys.backends.pkcs11.module import get_module
from keys.backends.pkcs11.uri import parse_uri
from support.not_run import skip_as_not_run

_MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)
_VARIABLE = "SOFTHSM2_CONF"
_SECURITY_OFFICER_PIN = "87654321"


@dataclass(frozen=True)
class SoftHsm:
    """A store of tokens; the module looks for new ones only while it initialises."""

    module: Path
    store: Path
    configuration: Path

    def add_token(self, label: str, pin: str = "1234") -> "SoftToken":
        """Make a token and the file with its PIN."""
        command = ["softhsm2-util", "--init-token", "--free", "--label", label, "--pin", pin]
        subprocess.run(
            [*command, "--so-pin", _SECURITY_OFFICER_PIN],
            check=True,
            capture_output=True,
            env=os.environ | {_VARIABLE: str(self.configuration)},
        )
        pin_file = self.store.parent / f"{label}.pin"
        pin_file.write_text(f"{pin}\n")
        pin_file.chmod(0o600)
        return SoftToken(self, label, pin, pin_file)


@dataclass(frozen=True)
class SoftToken:
    """A token, initialised, without keys."""

    hsm: SoftHsm
    label: str
    pin: str
    pin_file: Path

    def uri(self, label: str | None = None) -> str:
        """Return the URI for keys called ``label``, or for keys called like their rings."""
        path = f"pkcs11:token={self.label}" + (f";object={label}" if label else "")
        return f"{path}?module-path={self.hsm.module}&pin-source=file:{self.pin_file}"


@pytest.fixture(scope="session")
def softhsm(tmp_path_factory):
    """The store of this test process; its module reads the environment while it initialises."""
    module = next((Path(name).resolve() for name in _MODULES if Path(name).is_file()), None)
    if module is None or shutil.which("softhsm2-util") is None:
        skip_as_not_run("keys on a PKCS#11 token", "softhsm2")
    folder = tmp_path_factory.mktemp("softhsm")
    store = folder / "tokens"
    store.mkdir()
    configuration = folder / "softhsm2.conf"
    configuration.write_text(
        f"directories.tokendir = {store}\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = str(configuration)
    yield SoftHsm(module, store, configuration)
    if before is None:
        del os.environ[_VARIABLE]
    else:
        os.environ[_VARIABLE] = before


def on_token(token, work):
    """Do something on the token as somebody else who has the PIN."""
    location, _ = parse_uri(token.uri())
    return get_module(location.module).run(location, lambda opened: work(opened.session))


def delete_key_pair(token, label):
    """Delete both halves of a key pair, as an operator's tool would."""

    def work(session):
        for found in list(session.get_objects({Attribute.LABEL: label})):
            found.destroy()

    on_token(token, work)


def rename_key_pair(token, label, new_label):
    """Give both halves of a key pair another label."""

    def work(session):
        for found in list(session.get_objects({Attribute.LABEL: label})):
            found[Attribute.LABEL] = new_label

    on_token(token, work)


def make_foreign_key(token, label, *, key_id=b"foreign", private=(), public=()):
    """Make a key pair as an operator's tool would; without a public half if that is None."""

    def work(session):
        made, _ = session.generate_keypair(
            KeyType.EC,
            store=True,
            id=key_id,
            label=label,
            mechanism=Mechanism.EC_KEY_PAIR_GEN,
            public_template={Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
            | dict(public or ()),
            private_template={Attribute.EXTRACTABLE: False} | dict(private),
        )
        if public is None:
            made.destroy()

    on_token(token, work)
