"""The way of a transit signature from the backend to the socket stays short."""

import sys
from types import FrameType
from typing import Any

from keys.backends.vault.transit import TransitBackend
from support.source_tree import ROOT
from support.vault_parts import open_client, token_access

#: Functions of ours that a call enters before the request is on its way.
MOST_ENTERED = 15
#: Frames of ours on the stack when it goes.
MOST_NESTED = 12


class FramesToTheSocket:
    """A profile function that counts frames of `keys` until something is sent."""

    def __init__(self) -> None:
        self.entered: list[str] = []
        self.nested = 0
        self._depth = 0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if self.nested:
            return
        if event == "c_call" and argument.__name__ == "sendall":
            self.nested = self._depth
        elif frame.f_code.co_filename.startswith(f"{ROOT / 'keys'}/"):
            if event == "call":
                self.entered.append(frame.f_code.co_name)
                self._depth += 1
            elif event == "return":
                self._depth -= 1


def test_a_signature_enters_few_functions_before_its_request_is_sent(bao_mount):
    access = token_access(bao_mount.server.address, token=bao_mount.server.token)
    with open_client(access) as client:
        backend = TransitBackend(client, bao_mount.mount, "ring", "ring")
        backend.create("ring", "ES256")
        backend.sign("ring", "1", "ES256", [b"data"])
        frames = FramesToTheSocket()
        sys.setprofile(frames)
        try:
            backend.sign("ring", "1", "ES256", [b"data"])
        finally:
            sys.setprofile(None)
    assert 0 < frames.nested <= MOST_NESTED, frames.entered
    assert len(frames.entered) <= MOST_ENTERED, frames.entered
