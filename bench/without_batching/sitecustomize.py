"""Makes transit sign each input in a call of its own, to measure what batching is worth.

Python imports a module of this name at the start of every interpreter that finds it: the server's
workers are interpreters of their own, started by the server itself.
"""

from keys.backends.vault import transit as vault_transit
from keys.backends.vault.batching import BatchLimits

vault_transit.LIMITS = BatchLimits(calls_in_flight=64, batch_size=1)  # type: ignore[attr-defined]
