"""Combines simultaneous signatures into one call to the Vault.

There is no sender thread: of the callers that wait, one leads the next call and takes the others
along, so a lone caller sends its own request and no thread is woken for it (docs/decisions/0016).
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic
from typing import NamedTuple

from keys.errors import BackendError, BackendUnavailable
from keys.forks import on_fork

#: A caller with less time left than this is not taken along any more.
SHORTEST_CALL_SECONDS = 0.25


class BatchLimits(NamedTuple):
    """Limits of the calls for one kind of key.

    Attributes:
        calls_in_flight: the number of calls that wait for an answer.
        batch_size: the largest number of inputs of a call.
    """

    calls_in_flight: int
    batch_size: int


#: OpenBao refuses JSON with more than 1,000 strings, and names count. A second call at a time made
#: ECDSA and EdDSA slower in every measurement with 4 threads and no faster with more.
LIMITS = BatchLimits(calls_in_flight=1, batch_size=200)
#: A Vault signs a batch on one core, and RSA keeps it busy: 200 signatures by RSA-4096 would take
#: longer than the read time-out, and a second core helps.
RSA_LIMITS = BatchLimits(calls_in_flight=2, batch_size=32)

#: Signs inputs by a deadline (monotonic): for each a signature, or the error of that input alone.
SignBatch = Callable[[Sequence[bytes], float], Sequence[bytes | BackendError]]


@dataclass(slots=True, eq=False)
class _Caller:
    """One caller, woken when it is answered or when it leads ``batch``."""

    inputs: Sequence[bytes]
    deadline: float
    #: Held by a caller that waits; released to wake it.
    waking: Lock = field(default_factory=Lock)
    batch: "Sequence[_Caller]" = ()
    signatures: list[bytes] = field(default_factory=list)
    error: BackendError | None = None


class SignatureBatcher:
    """Coalesces the calls for one version of a key; safe for threads and for fork.

    A call goes out at once while fewer than the limit are in flight. Callers that come meanwhile
    wait, and one of them leads the next call, with as many others as the batch size permits.

    Args:
        sign_batch: makes one call; an error is raised for all of its callers.
        seconds: the longest wait of a caller, including its call.
        limits: the numbers of calls in flight and of inputs in each.
    """

    def __init__(self, sign_batch: SignBatch, seconds: float, limits: BatchLimits = LIMITS) -> None:
        self._sign_batch = sign_batch
        self._seconds = seconds
        self._limits = limits
        self.reset_after_fork()
        on_fork(self.reset_after_fork)

    def reset_after_fork(self) -> None:
        """Forget the callers that wait, which are in the parent."""
        self._lock = Lock()
        self._waiting: deque[_Caller] = deque()
        self._in_flight = 0

    @property
    def waiting(self) -> int:
        """Number of callers that wait for the next call."""
        return len(self._waiting)

    def sign(self, inputs: Sequence[bytes]) -> list[bytes]:
        """Return one signature for each input, in order.

        Raises:
            BackendError: the call failed, or one of the inputs did.
        """
        size = self._limits.batch_size
        if len(inputs) > size:
            starts = range(0, len(inputs), size)
            return [made for at in starts for made in self.sign(inputs[at : at + size])]
        caller = _Caller(inputs, monotonic() + self._seconds)
        with self._lock:
            if self._in_flight < self._limits.calls_in_flight:
                self._in_flight += 1
                caller.batch = (caller,)
            else:
                caller.waking.acquire()
                self._waiting.append(caller)
        if not caller.batch and not caller.waking.acquire(timeout=self._seconds):
            self._give_up(caller)
        if caller.batch:
            self._lead(caller.batch)
        if caller.error is not None:
            raise caller.error
        return caller.signatures

    def _give_up(self, caller: _Caller) -> None:
        with self._lock:
            if caller.batch or not caller.waking.locked():
                return
            if caller in self._waiting:
                self._waiting.remove(caller)
        raise _too_late()

    def _lead(self, batch: Sequence[_Caller]) -> None:
        """Make the call for ``batch``, whose first caller is this one, and wake the others."""
        leader, *others = batch
        try:
            inputs = (
                [data for caller in batch for data in caller.inputs] if others else leader.inputs
            )
            _hand_out(batch, self._sign_batch(inputs, leader.deadline))
        except BackendError as error:
            for caller in batch:
                caller.error = error
        finally:
            self._pass_on()
            for caller in others:
                if not caller.signatures and caller.error is None:
                    caller.error = BackendUnavailable("the call for the signature was given up", 1)
                caller.waking.release()

    def _pass_on(self) -> None:
        """Wake the leader of the next call, if any caller waits."""
        with self._lock:
            late, batch = self._take_batch()
            if batch:
                batch[0].batch = batch
            else:
                self._in_flight -= 1
        for caller in late:
            caller.error = _too_late()
            caller.waking.release()
        if batch:
            batch[0].waking.release()

    def _take_batch(self) -> tuple[list[_Caller], list[_Caller]]:
        late: list[_Caller] = []
        batch: list[_Caller] = []
        room, latest = self._limits.batch_size, monotonic() + SHORTEST_CALL_SECONDS
        while self._waiting and len(self._waiting[0].inputs) <= room:
            caller = self._waiting.popleft()
            if caller.deadline < latest:
                late.append(caller)
            else:
                batch.append(caller)
                room -= len(caller.inputs)
        return late, batch


def _hand_out(batch: Sequence[_Caller], outcomes: Sequence[bytes | BackendError]) -> None:
    start = 0
    for caller in batch:
        end = start + len(caller.inputs)
        for outcome in outcomes[start:end]:
            if isinstance(outcome, BackendError):
                caller.error = outcome
            else:
                caller.signatures.append(outcome)
        start = end


def _too_late() -> BackendUnavailable:
    return BackendUnavailable("too many signatures wait for the Vault", retry_after=1)
