"""Findings of a check of the audit chains, and the checkpoints that it reads."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from authz_server.audit.chain import Head
from authz_server.audit.checkpoints import CHECKPOINT_TYPE
from keys.errors import TokenRefusedError
from keys.jose.compact import parse_compact

Fault = Literal["changed", "removed", "reordered", "inserted", "cut off", "forged", "unsigned"]
#: The errors of decoding a line that is not a record.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
#: The largest number of findings that are kept.
MAXIMUM_FINDINGS = 1_000
#: Verifies a signature over data with the key of an id; None: the key is not known.
FindVerifier = Callable[[str], Callable[[bytes, bytes], None] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A place at which a chain is not intact.

    Attributes:
        fault: ``changed``, ``removed``, ``reordered`` or ``inserted`` records, records that were
            ``cut off`` at an end, a ``forged`` checkpoint, or records that are still ``unsigned``.
        place: the file and line, or the stored record or block.
        detail: a description.
    """

    fault: Fault
    place: str
    detail: str


class BlockHead(msgspec.Struct, frozen=True):
    """The latest block that a checkpoint names."""

    number: int
    hash: str


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The verified payload of a checkpoint.

    Attributes:
        iat: the time of the signature, in seconds since 1970.
        writer: the id of the writer that made it.
        sequence: the number of that writer's latest record.
        hash: the record's hash.
        writers: the number and hash of the latest record of further writers.
        block: the latest block of stored records; None: there was none.
        kept_since: stored records that are older may be missing; None: none may.
    """

    iat: int
    writer: str
    sequence: int
    hash: str
    writers: Mapping[str, tuple[int, str]] = {}
    block: BlockHead | None = None
    kept_since: int | None = None

    @property
    def heads(self) -> tuple[Head, ...]:
        """The latest records that it names."""
        others = (Head(writer, *each) for writer, each in self.writers.items())
        return (Head(self.writer, self.sequence, self.hash), *others)


class CheckpointReader:
    """Verifies checkpoints, and counts those whose key is not known.

    Args:
        find_verifier: finds the verifier of a key by its id.

    Attributes:
        verified: the number of valid checkpoints.
        unknown: the number of checkpoints whose key is not known.
    """

    def __init__(self, find_verifier: FindVerifier) -> None:
        self._find_verifier = find_verifier
        self._decode = msgspec.json.Decoder(Checkpoint).decode
        self.verified = 0
        self.unknown = 0

    def read(self, token: str) -> Checkpoint | None:
        """Return the payload of a checkpoint; None: its key is not known.

        Raises:
            TokenRefusedError: it is not a checkpoint, or its signature does not match.
        """
        parsed = parse_compact(token)
        if parsed.header["typ"] != CHECKPOINT_TYPE:
            raise TokenRefusedError("not a checkpoint")
        verify = self._find_verifier(parsed.header["kid"])
        if verify is None:
            self.unknown += 1
            return None
        verify(parsed.signature, parsed.signing_input)
        try:
            found: Checkpoint = self._decode(parsed.payload)
        except UNREADABLE as error:
            raise TokenRefusedError("not a checkpoint") from error
        self.verified += 1
        return found


def describe(fault: Fault, place: str, detail: str, **values: Any) -> Finding:  # noqa: ANN401 - any text
    """Return a finding whose description has the values in it."""
    return Finding(fault=fault, place=place, detail=detail.format(**values))
