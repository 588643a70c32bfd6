"""Key backend in the transit engine of a Vault or OpenBao, which keeps the private key.

Floors are only ever raised: ``fence`` sets ``min_encryption_version``, because without it every
pinned version signs for ever, and ``destroy`` sets both floors before it trims.
"""

import re
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from keys.backend import BackendView, Capabilities, Health, KeyBackend, Version
from keys.backends.registry import BackendContext
from keys.backends.vault.batching import LIMITS, RSA_LIMITS, SignatureBatcher
from keys.backends.vault.client import VaultClient, share_client
from keys.backends.vault.errors import OK_STATUS, describe_errors, server_error
from keys.backends.vault.http import RETRY_AFTER_SECONDS, SERVER_ERROR_STATUS, VaultReply
from keys.backends.vault.transit_engine import (
    KEY_TYPES,
    NO_VERSIONS,
    ItemError,
    TransitEngine,
    TransitKey,
    find_leaks,
    read_signatures,
    read_transit_key,
    signing_request,
)
from keys.errors import (
    BackendBroken,
    BackendDenied,
    BackendError,
    BackendUnavailable,
    KeysError,
    VersionUnusable,
)
from keys.events import Alarm, BatchSent, Notify, ignore
from keys.jose.algorithms import get_algorithm

#: The private half of a key may leave the Vault.
TOO_WIDE_ALARM = "privilege.too_wide"

#: The type of a key that does not fit is read again at most once in this time.
KIND_INTERVAL_SECONDS = 1.0

_REF = re.compile(r"[1-9][0-9]{0,8}")
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_OPTIONS = frozenset({"vault", "allow_exportable"})


def open_backend(uri: str, context: BackendContext) -> KeyBackend:
    """Return the backend for ``transit://MOUNT/KEY[?vault=NAME][&allow_exportable=true]``.

    The mount may have several segments. No request is sent to the Vault.

    Raises:
        KeysError: the URI is malformed, or its Vault is not in the settings.
    """
    mount, key, options = _parse(uri)
    client = share_client(context.vaults, options.get("vault", "main"), context.notify)
    allow_exportable = options.get("allow_exportable") == "true"
    return TransitBackend(
        client,
        mount,
        key,
        context.ring or key,
        allow_exportable=allow_exportable,
        notify=context.notify,
    )


class TransitBackend:
    """One transit key, serving one ring.

    Args:
        client: the Vault.
        mount: the mount path of the engine.
        key: the key's name.
        ring: the only ring that it serves.
        allow_exportable: use the key even if it is exportable.
        notify: receives the number of inputs of each call.
    """

    scheme = "transit"
    caps = Capabilities(algs=frozenset(KEY_TYPES), in_process=False)

    def __init__(  # noqa: PLR0913 - the parts of a URI
        self,
        client: VaultClient,
        mount: str,
        key: str,
        ring: str,
        *,
        allow_exportable: bool = False,
        notify: Notify = ignore,
    ) -> None:
        self._client = client
        self._engine = TransitEngine(client, mount, key)
        self._name = self._engine.name
        self._ring = ring
        self._allow_exportable = allow_exportable
        self._notify = notify
        self._kind = ""
        self._kind_read_at = 0.0
        self._batchers: dict[tuple[str, str], SignatureBatcher] = {}

    # ------------------------------------------------------------------------------- reading

    def describe_versions(self, ring: str) -> BackendView:
        """Read the versions of the key; there are none if it does not exist."""
        key = self._find() if ring == self._ring else None
        return key.view if key is not None else NO_VERSIONS

    def health(self) -> Health:
        """Read the key."""
        try:
            key = self._find()
        except BackendError as error:
            return Health(usable=False, detail=str(error))
        where = f"{self._name} at {self._client.address}"
        if key is None:
            return Health(usable=True, detail=f"no key {where} yet")
        if key.view.disabled:
            return Health(usable=False, detail=f"the key {where} is soft-deleted")
        return Health(usable=True, detail=f"{where}: {key.kind}, version {key.latest}")

    def _find(self, deadline: float | None = None) -> TransitKey | None:
        data = self._engine.find(deadline)
        return self._read(data) if data is not None else None

    def _get(self) -> TransitKey:
        key = self._find()
        if key is None:
            raise VersionUnusable(f"there is no transit key {self._name}")
        return key

    def _read(self, data: Mapping[str, Any]) -> TransitKey:
        leaks = find_leaks(data)
        if leaks and not self._allow_exportable:
            self._notify(Alarm(TOO_WIDE_ALARM, self._name, f"it is {' and '.join(leaks)}"))
        key = read_transit_key(data, self._name, allow_exportable=self._allow_exportable)
        self._kind, self._kind_read_at = key.kind, time.monotonic()
        return key

    # ------------------------------------------------------------------------------- signing

    def sign(self, ring: str, ref: str, alg: str, inputs: Sequence[bytes]) -> list[bytes]:
        """Sign, combined with simultaneous calls for the same version."""
        batcher = self._batchers.get((ref, alg))
        if batcher is None or ring != self._ring or self._kind not in KEY_TYPES[alg]:
            batcher = self._find_batcher(ring, ref, alg)
        return batcher.sign(inputs)

    def _find_batcher(self, ring: str, ref: str, alg: str) -> SignatureBatcher:
        """Return the batcher of a version; VersionUnusable if it cannot sign with ``alg``."""
        if ring != self._ring:
            raise VersionUnusable(f"the transit key {self._name} is not the ring {ring!r}")
        if not _REF.fullmatch(ref):
            raise VersionUnusable(f"the transit key {self._name} has no version {ref!r}")
        kind, kinds = self._kind or self._get().kind, KEY_TYPES.get(alg, ())
        may_be_wrong = time.monotonic() - self._kind_read_at >= KIND_INTERVAL_SECONDS
        if kind not in kinds and may_be_wrong:
            kind = self._get().kind
        if kind not in kinds:
            raise VersionUnusable(f"the transit key {self._name} of type {kind} is not for {alg}")
        limits = RSA_LIMITS if get_algorithm(alg).kty == "RSA" else LIMITS
        sign_batch = partial(self._sign_batch, ref, alg)
        made = SignatureBatcher(sign_batch, self._client.total_timeout_seconds, limits)
        return self._batchers.setdefault((ref, alg), made)

    def _sign_batch(
        self, ref: str, alg: str, inputs: Sequence[bytes], deadline: float
    ) -> Sequence[bytes | BackendError]:
        """Make one call; if nothing was signed, repeat it elsewhere, because a node may lag."""
        self._notify(BatchSent(len(inputs)))
        body = signing_request(ref, alg, inputs)
        reply = self._engine.sign(body, avoid="", deadline=deadline)
        results = self._read_results(reply, ref, alg, len(inputs), deadline)
        if self._client.has_several_addresses and all(isinstance(r, ItemError) for r in results):
            reply = self._engine.sign(body, avoid=reply.address, deadline=deadline)
            results = self._read_results(reply, ref, alg, len(inputs), deadline)
        failed = next((result for result in results if isinstance(result, ItemError)), None)
        if failed is None:
            return [result for result in results if not isinstance(result, ItemError)]
        error = self._explain(ref, failed.text, deadline)
        return [error if isinstance(result, ItemError) else result for result in results]

    def _read_results(
        self, reply: VaultReply, ref: str, alg: str, count: int, deadline: float
    ) -> Sequence[bytes | ItemError]:
        if reply.status == OK_STATUS:
            return read_signatures(reply.body, ref, alg, count)
        detail = describe_errors(reply.body)
        if reply.status == SERVER_ERROR_STATUS:
            error = self._explain(ref, detail, deadline)
            if isinstance(error, VersionUnusable):
                raise error
            raise server_error(f"signing with the transit key {self._name}", detail)
        return [ItemError(detail)] * count

    def _explain(self, ref: str, text: str, deadline: float) -> BackendError:
        """Return the backend error for an error of ``sign``, by the state of the key."""
        key = self._find(deadline)
        if key is None or key.view.disabled:
            state = "not there" if key is None else "soft-deleted"
            return VersionUnusable(f"the transit key {self._name} is {state}")
        if key.version(int(ref)) is None or int(ref) < int(key.view.sign_floor or "1"):
            return VersionUnusable(f"version {ref} of the transit key {self._name} may not sign")
        return BackendUnavailable(
            f"the Vault does not sign with version {ref} of {self._name}, which it shows: {text}",
            RETRY_AFTER_SECONDS,
        )

    def forget(self, ring: str, ref: str) -> bool:
        """Return False; only the type of a transit key is kept, and it is read again."""
        del ring, ref
        self._kind = ""
        return False

    # ------------------------------------------------------------------------------ changing

    def create(self, ring: str, alg: str) -> Version:
        """Make the key, or rotate it; a key whose type is not for ``alg`` is not changed."""
        kinds = KEY_TYPES.get(alg)
        if kinds is None:
            raise KeysError(f"transit has no keys for {alg!r}: {', '.join(sorted(KEY_TYPES))}")
        if ring != self._ring:
            raise BackendDenied(f"the transit key {self._name} is not the ring {ring!r}")
        with self._client.changing:
            self._client.prefer_leader()
            held = self._find()
            if held is None:
                return self._make(kinds[0])
            if held.kind not in kinds:
                raise BackendBroken(
                    f"the transit key {self._name} is of type {held.kind}, which is not for {alg}"
                )
            if held.view.disabled:
                raise BackendDenied(f"the transit key {self._name} is soft-deleted")
            return self._rotate()

    def _make(self, kind: str) -> Version:
        made = self._read_change(self._engine.create(kind))
        if made.kind != kind:
            raise BackendBroken(f"another transit key {self._name} was made in the same moment")
        return self._rotate() if made.latest > 1 else self._latest(made)

    def _rotate(self) -> Version:
        # The reply shows the version that this very call made; a later read may show others' too.
        return self._latest(self._read_change(self._engine.rotate()))

    def _latest(self, key: TransitKey) -> Version:
        version = key.version(key.latest)
        if version is None:
            raise BackendBroken(f"the transit key {self._name} does not show its latest version")
        return version

    def fence(self, ring: str, sign_floor: str) -> None:
        """Raise ``min_encryption_version``, unless it is higher already."""
        key = self._require_version(ring, sign_floor)
        if key.minimum_encryption < int(sign_floor):
            settings = {"min_encryption_version": int(sign_floor)}
            fenced = self._read_change(self._engine.configure(settings))
            if fenced.minimum_encryption < int(sign_floor):
                raise BackendBroken(f"the transit key {self._name} does not keep its fence")

    def destroy(self, ring: str, verify_floor: str) -> None:
        """Raise both floors and trim the versions below."""
        key, floor = self._require_version(ring, verify_floor), int(verify_floor)
        # In one call: the floor for verifying must not pass one for signing that is set.
        minimum_encryption = max(floor, key.minimum_encryption)
        self._read_change(
            self._engine.configure(
                {"min_decryption_version": floor, "min_encryption_version": minimum_encryption}
            )
        )
        self._engine.trim(floor)

    def _require_version(self, ring: str, ref: str) -> TransitKey:
        # A standby may show the key as it was a moment ago: too low a floor would be lowered, and a
        # version just made not found.
        self._client.prefer_leader()
        key = self._get() if ring == self._ring else None
        if key is None or not _REF.fullmatch(ref) or key.version(int(ref)) is None:
            raise VersionUnusable(f"version {ref} of the transit key {self._name} is not held")
        return key

    def _read_change(self, data: Mapping[str, Any]) -> TransitKey:
        # OpenBao shows the key as it is after a change; where a Vault does not, it is read.
        return self._read(data) if data else self._get()


def _parse(uri: str) -> tuple[str, str, dict[str, str]]:
    parts = urlsplit(uri)
    segments = [part for part in (parts.netloc + parts.path).split("/") if part]
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    sound = all(_SEGMENT.fullmatch(segment) for segment in segments) and not parts.fragment
    if parts.scheme != "transit" or len(segments) < 2 or not sound or set(options) - _OPTIONS:  # noqa: PLR2004 - mount and key
        raise KeysError(f"a transit key is named transit://MOUNT/KEY?vault=NAME, not {uri!r}")
    return "/".join(segments[:-1]), segments[-1], options
