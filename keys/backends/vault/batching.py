"""Signatures asked for at the same time go to the Vault in one call."""

from collections import deque
from collections.abc import Callable, Sequence
from threading import Event, Lock
from time import monotonic
from typing import NamedTuple

from keys.errors import BackendError, BackendUnavailable
from keys.forks import on_fork

#: Who has less time left than this is not sent on its way any more.
SHORTEST_FLIGHT_SECONDS = 0.25


class Fleet(NamedTuple):
    """How calls for one kind of key are made.

    Attributes:
        flights: How many are on their way at once.
        seats: How many inputs each carries at most.
    """

    flights: int
    seats: int


#: OpenBao refuses JSON with more than 1,000 strings, and names count. A second call at a time made
#: ECDSA and EdDSA slower in every measurement with 4 threads and no faster with more.
FLEET = Fleet(flights=1, seats=200)
#: A Vault signs a batch on one core, and RSA keeps it busy: 200 signatures by RSA-4096 would take
#: longer than the read time-out, and a second core helps.
RSA_FLEET = Fleet(flights=2, seats=32)

#: Signs inputs within some seconds: for each a signature or what went wrong with it alone.
Fly = Callable[[Sequence[bytes], float], Sequence[bytes | BackendError]]


class _Order:
    """What one caller wants; woken when it is done, or when it is to fly a batch itself."""

    __slots__ = ("batch", "deadline", "error", "inputs", "signatures", "wake")

    def __init__(self, inputs: Sequence[bytes], deadline: float) -> None:
        self.inputs = inputs
        self.deadline = deadline
        self.wake = Event()
        self.batch: Sequence[_Order] = ()
        self.signatures: list[bytes] = []
        self.error: BackendError | None = None


class SignatureBatcher:
    """Coalesces the calls for one version of a key; safe for threads and for fork.

    A call goes out at once while fewer than the fleet's flights are on their way. Whoever comes
    meanwhile waits, and one of the waiting takes as many along in the next call as it has seats.

    Args:
        fly: Makes one call; raises what concerns everybody on board.
        seconds: How long a caller waits at most, flight included.
        fleet: How many calls may be on their way, and how many inputs each carries.
    """

    def __init__(self, fly: Fly, seconds: float, fleet: Fleet = FLEET) -> None:
        self._fly = fly
        self._seconds = seconds
        self._fleet = fleet
        self.forget()
        on_fork(self.forget)

    def forget(self) -> None:
        """Forget the callers that wait: after a fork, they are in the parent."""
        self._lock = Lock()
        self._waiting: deque[_Order] = deque()
        self._flying = 0

    @property
    def waiting(self) -> int:
        """How many callers wait for a call to take them along."""
        return len(self._waiting)

    def sign(self, inputs: Sequence[bytes]) -> list[bytes]:
        """Return one signature for each input, in order.

        Raises:
            BackendError: The call failed, or one of these inputs did.
        """
        seats = self._fleet.seats
        signatures: list[bytes] = []
        for start in range(0, len(inputs), seats):
            signatures += self._sign(inputs[start : start + seats])
        return signatures

    def _sign(self, inputs: Sequence[bytes]) -> list[bytes]:
        order = _Order(inputs, monotonic() + self._seconds)
        with self._lock:
            if self._flying < self._fleet.flights:
                self._flying += 1
                order.batch = (order,)
            else:
                self._waiting.append(order)
        if not order.batch and not order.wake.wait(self._seconds):
            self._give_up(order)
        if order.batch:
            self._pilot(order.batch)
        if order.error is not None:
            raise order.error
        return order.signatures

    def _give_up(self, order: _Order) -> None:
        with self._lock:
            if order.batch or order.wake.is_set():
                return
            if order in self._waiting:
                self._waiting.remove(order)
        raise _late()

    def _pilot(self, batch: Sequence[_Order]) -> None:
        pilot = batch[0]
        try:
            inputs = [data for order in batch for data in order.inputs]
            outcomes = self._fly(inputs, pilot.deadline - monotonic())
            _hand_out(batch, outcomes)
        except BackendError as error:
            for order in batch:
                order.error = error
        finally:
            self._land()
            for order in batch[1:]:
                if not order.signatures and order.error is None:
                    order.error = BackendUnavailable("the call for the signature was given up", 1)
                order.wake.set()

    def _land(self) -> None:
        with self._lock:
            late, batch = self._board()
            if batch:
                batch[0].batch = batch
            else:
                self._flying -= 1
        for order in late:
            order.error = _late()
            order.wake.set()
        if batch:
            batch[0].wake.set()

    def _board(self) -> tuple[list[_Order], list[_Order]]:
        late: list[_Order] = []
        batch: list[_Order] = []
        seats, latest = self._fleet.seats, monotonic() + SHORTEST_FLIGHT_SECONDS
        while self._waiting and len(self._waiting[0].inputs) <= seats:
            order = self._waiting.popleft()
            if order.deadline < latest:
                late.append(order)
            else:
                batch.append(order)
                seats -= len(order.inputs)
        return late, batch


def _hand_out(batch: Sequence[_Order], outcomes: Sequence[bytes | BackendError]) -> None:
    start = 0
    for order in batch:
        end = start + len(order.inputs)
        for outcome in outcomes[start:end]:
            if isinstance(outcome, BackendError):
                order.error = outcome
            else:
                order.signatures.append(outcome)
        start = end


def _late() -> BackendUnavailable:
    return BackendUnavailable("too many signatures wait for the Vault", retry_after=1)
