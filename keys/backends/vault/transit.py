"""The transit engine of a Vault or OpenBao: the private key never leaves it.

Floors are only ever raised: ``fence`` sets ``min_encryption_version``, because without it every
pinned version signs for ever, and ``destroy`` sets both floors before it trims.
"""

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from keys.backend import BackendView, Caps, Health, KeyBackend, Version
from keys.backends.registry import BackendContext
from keys.backends.vault.batching import FLEET, RSA_FLEET, SignatureBatcher
from keys.backends.vault.errors import (
    RETRY_AFTER_SECONDS,
    SERVER_ERROR_STATUS,
    VaultNotFound,
    data_of,
    describe_errors,
    server_error,
    vault_errors,
)
from keys.backends.vault.session import VaultSession, share_session
from keys.backends.vault.transit_key import (
    KEY_TYPES,
    NO_VERSIONS,
    TransitKey,
    find_leaks,
    read_transit_key,
)
from keys.backends.vault.transit_signing import (
    ItemError,
    fits,
    read_signatures,
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
from keys.jose.algorithms import get_algorithm
from keys.observer import Observer, SilentObserver

#: The private half of a key may leave the Vault.
TOO_WIDE_ALARM = "privilege.too_wide"

#: The type of a key that does not fit is read again at most once in this time.
KIND_INTERVAL_SECONDS = 1.0

_REF = re.compile(r"[1-9][0-9]{0,8}")
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_OK_STATUS = 200
_OPTIONS = frozenset({"vault", "allow_exportable"})


def open_backend(uri: str, context: BackendContext) -> KeyBackend:
    """Return the backend for ``transit://MOUNT/KEY[?vault=NAME][&allow_exportable=true]``.

    The mount may have several segments. Nothing is asked of the Vault yet.

    Raises:
        KeysError: The URI cannot be read, or its Vault is not in the settings.
    """
    mount, key, options = _parse(uri)
    session = share_session(context.vaults, options.get("vault", "main"), context.observer)
    allow_exportable = options.get("allow_exportable") == "true"
    return TransitBackend(
        session,
        mount,
        key,
        context.ring or key,
        allow_exportable=allow_exportable,
        observer=context.observer,
    )


class TransitBackend:
    """One transit key, serving one ring.

    Args:
        session: The Vault.
        mount: Where the engine is mounted.
        key: The key's name.
        ring: The only ring that it serves.
        allow_exportable: Use the key although its private half may leave the Vault.
        observer: Hears how many inputs each call carried.
    """

    scheme = "transit"
    caps = Caps(
        algs=frozenset(KEY_TYPES),
        in_process=False,
        # EdDSA has no digest to send: its inputs leave this process.
        prehash=True,
        batch=True,
        can_create=True,
        can_fence=True,
        can_destroy=True,
    )

    def __init__(  # noqa: PLR0913 - the parts of a URI
        self,
        session: VaultSession,
        mount: str,
        key: str,
        ring: str,
        *,
        allow_exportable: bool = False,
        observer: Observer | None = None,
    ) -> None:
        self._session = session
        self._mount = mount
        self._key = key
        self._ring = ring
        self._allow_exportable = allow_exportable
        self._observer = observer or SilentObserver()
        self._kind = ""
        self._kind_read_at = 0.0
        self._batchers: dict[tuple[str, str], SignatureBatcher] = {}

    @property
    def _name(self) -> str:
        return f"{self._mount}/{self._key}"

    # ------------------------------------------------------------------------------- reading

    def view(self, ring: str) -> BackendView:
        """Read the key; a key or ring that is not there has no versions."""
        key = self._find() if ring == self._ring else None
        return key.view if key is not None else NO_VERSIONS

    def health(self) -> Health:
        """Read the key."""
        try:
            key = self._find()
        except BackendError as error:
            return Health(usable=False, detail=str(error))
        where = f"{self._name} at {self._session.address}"
        if key is None:
            return Health(usable=True, detail=f"no key {where} yet")
        if key.view.disabled:
            return Health(usable=False, detail=f"the key {where} is soft-deleted")
        return Health(usable=True, detail=f"{where}: {key.kind}, version {key.latest}")

    def _find(self) -> TransitKey | None:
        with vault_errors(f"reading the transit key {self._name}"):
            try:
                reply = self._transit.read_key(self._key, mount_point=self._mount)
            except VaultNotFound as error:
                # For a key that it does not hold, an engine has no words; a path without an
                # engine has some.
                if error.errors:
                    raise
                return None
        return self._read(reply)

    def _get(self) -> TransitKey:
        key = self._find()
        if key is None:
            raise VersionUnusable(f"there is no transit key {self._name}")
        return key

    def _read(self, reply: Any) -> TransitKey:  # noqa: ANN401 - JSON
        data = data_of(reply)
        leaks = find_leaks(data)
        if leaks and not self._allow_exportable:
            self._observer.alarm(TOO_WIDE_ALARM, self._name, f"it is {' and '.join(leaks)}")
        key = read_transit_key(data, self._name, allow_exportable=self._allow_exportable)
        self._kind, self._kind_read_at = key.kind, time.monotonic()
        return key

    @property
    def _transit(self) -> Any:  # noqa: ANN401 - the library has no types
        return self._session.client.secrets.transit

    # ------------------------------------------------------------------------------- signing

    def sign(self, ring: str, ref: str, alg: str, inputs: Sequence[bytes]) -> list[bytes]:
        """Sign, together with whoever else wants the same version at this moment."""
        self._require_fit(ring, ref, alg)
        batcher = self._batchers.get((ref, alg))
        if batcher is None:
            batcher = self._batchers.setdefault((ref, alg), self._make_batcher(ref, alg))
        return batcher.sign(inputs)

    def _require_fit(self, ring: str, ref: str, alg: str) -> None:
        if ring != self._ring:
            raise VersionUnusable(f"the transit key {self._name} is not the ring {ring!r}")
        if not _REF.fullmatch(ref):
            raise VersionUnusable(f"the transit key {self._name} has no version {ref!r}")
        kind = self._kind or self._get().kind
        may_be_wrong = time.monotonic() - self._kind_read_at >= KIND_INTERVAL_SECONDS
        if not fits(alg, kind) and may_be_wrong:
            kind = self._get().kind
        if not fits(alg, kind):
            raise VersionUnusable(f"the transit key {self._name} of type {kind} is not for {alg}")

    def _make_batcher(self, ref: str, alg: str) -> SignatureBatcher:
        def fly(inputs: Sequence[bytes], seconds: float) -> Sequence[bytes | BackendError]:
            with self._session.within(seconds):
                return self._sign(ref, alg, inputs)

        fleet = RSA_FLEET if get_algorithm(alg).kty == "RSA" else FLEET
        return SignatureBatcher(fly, self._session.total_timeout_seconds, fleet)

    def _sign(self, ref: str, alg: str, inputs: Sequence[bytes]) -> Sequence[bytes | BackendError]:
        """Make one call; where nothing was signed, one more elsewhere, for a node may lag."""
        self._observer.batch(len(inputs))
        body = signing_request(ref, alg, inputs)
        results, address = self._call(body, ref, alg)
        if self._session.has_several_addresses and all(isinstance(r, ItemError) for r in results):
            results, _ = self._call(body, ref, alg, avoid=address)
        failed = next((result for result in results if isinstance(result, ItemError)), None)
        if failed is None:
            return [result for result in results if not isinstance(result, ItemError)]
        error = self._explain(ref, failed.text)
        return [error if isinstance(result, ItemError) else result for result in results]

    def _call(
        self, body: Mapping[str, Any], ref: str, alg: str, avoid: str = ""
    ) -> tuple[Sequence[bytes | ItemError], str]:
        # The algorithm goes into the body: with it in the path, a policy would need another path.
        path = f"{self._mount}/sign/{self._key}"
        reply = self._session.call("POST", path, body, repeatable=True, avoid=avoid)
        count = len(body["batch_input"])
        if reply.status == _OK_STATUS:
            return read_signatures(reply.body, ref, alg, count), reply.address
        detail = describe_errors(reply.body)
        if reply.status == SERVER_ERROR_STATUS:
            error = self._explain(ref, detail)
            if isinstance(error, VersionUnusable):
                raise error
            raise server_error(f"signing with the transit key {self._name}", detail)
        return [ItemError(detail)] * count, reply.address

    def _explain(self, ref: str, text: str) -> BackendError:
        """Return what an error of ``sign`` means, from the key's state and not from its text."""
        key = self._find()
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
        """Return False: of a transit key only its type is kept, which is read again."""
        del ring, ref
        self._kind = ""
        return False

    # ------------------------------------------------------------------------------ changing

    def create(self, ring: str, alg: str) -> Version:
        """Make the key, or rotate it; a key of a type that is not for ``alg`` is left alone."""
        kinds = KEY_TYPES.get(alg)
        if kinds is None:
            raise KeysError(f"transit has no keys for {alg!r}: {', '.join(sorted(KEY_TYPES))}")
        if ring != self._ring:
            raise BackendDenied(f"the transit key {self._name} is not the ring {ring!r}")
        # Transit answers a second creation with the key that is there, and does not say so.
        with self._session.changing:
            self._session.prefer_leader()
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
        with vault_errors(f"creating the transit key {self._name}"):
            reply = self._transit.create_key(
                self._key,
                key_type=kind,
                exportable=False,
                allow_plaintext_backup=False,
                mount_point=self._mount,
            )
        made = self._read_change(reply)
        if made.kind != kind:
            raise BackendBroken(f"another transit key {self._name} was made in the same moment")
        return self._rotate() if made.latest > 1 else self._latest(made)

    def _rotate(self) -> Version:
        with vault_errors(f"rotating the transit key {self._name}"):
            reply = self._transit.rotate_key(self._key, mount_point=self._mount)
        # The reply shows the version that this very call made; a later read may show others' too.
        return self._latest(self._read_change(reply))

    def _latest(self, key: TransitKey) -> Version:
        version = key.version(key.latest)
        if version is None:
            raise BackendBroken(f"the transit key {self._name} does not show its latest version")
        return version

    def fence(self, ring: str, sign_floor: str) -> None:
        """Raise ``min_encryption_version``; a floor that is higher already stays."""
        key = self._require_version(ring, sign_floor)
        if key.minimum_encryption < int(sign_floor):
            fenced = self._configure({"min_encryption_version": int(sign_floor)})
            if fenced.minimum_encryption < int(sign_floor):
                raise BackendBroken(f"the transit key {self._name} does not keep its fence")

    def destroy(self, ring: str, verify_floor: str) -> None:
        """Raise both floors and trim what is below."""
        key, floor = self._require_version(ring, verify_floor), int(verify_floor)
        # In one call: the floor for verifying must not pass one for signing that is set.
        minimum_encryption = max(floor, key.minimum_encryption)
        self._configure(
            {"min_decryption_version": floor, "min_encryption_version": minimum_encryption}
        )
        with vault_errors(f"trimming the transit key {self._name}"):
            self._transit.trim_key(self._key, floor, mount_point=self._mount)

    def _require_version(self, ring: str, ref: str) -> TransitKey:
        # A standby may show the key as it was a moment ago: too low a floor would be lowered, and a
        # version just made not found.
        self._session.prefer_leader()
        key = self._get() if ring == self._ring else None
        if key is None or not _REF.fullmatch(ref) or key.version(int(ref)) is None:
            raise VersionUnusable(f"version {ref} of the transit key {self._name} is not held")
        return key

    def _configure(self, settings: Mapping[str, int]) -> TransitKey:
        # Not by hvac's own method, which refuses floors that are equal.
        path = f"/v1/{self._mount}/keys/{self._key}/config"
        with vault_errors(f"configuring the transit key {self._name}"):
            reply = self._session.client.adapter.post(path, json=dict(settings))
        return self._read_change(reply)

    def _read_change(self, reply: Any) -> TransitKey:  # noqa: ANN401 - JSON
        # OpenBao shows the key as it is after a change; where a Vault does not, it is read.
        return self._read(reply) if data_of(reply) else self._get()


def _parse(uri: str) -> tuple[str, str, dict[str, str]]:
    parts = urlsplit(uri)
    segments = [part for part in (parts.netloc + parts.path).split("/") if part]
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    sound = all(_SEGMENT.fullmatch(segment) for segment in segments) and not parts.fragment
    if parts.scheme != "transit" or len(segments) < 2 or not sound or set(options) - _OPTIONS:  # noqa: PLR2004 - mount and key
        raise KeysError(f"a transit key is named transit://MOUNT/KEY?vault=NAME, not {uri!r}")
    return "/".join(segments[:-1]), segments[-1], options
