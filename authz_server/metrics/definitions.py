"""Every metric of the server: its name, kind and labels, and what it says.

``docs/metrics.md`` repeats the sentences; whoever counts or shows a metric takes it from here.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric.

    Attributes:
        name: As it is exposed; a counter's ends with ``_total``.
        kind: What it is.
        sentence: What it says.
        labels: The names of its labels.
        buckets: Upper bounds of a histogram.
    """

    name: str
    kind: Kind
    sentence: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


# ------------------------------------------------- of the rings, from the database at each scrape

BUILD_INFO = Family(
    "authz_server_build_info", "gauge", "1, with the server's version.", ("version",)
)
STORE_UP = Family(
    "authz_server_key_store_up",
    "gauge",
    "Whether the rings could be read from the database just now: 1 or 0.",
)
SIGNING_KEY_AGE = Family(
    "authz_server_signing_key_age_seconds",
    "gauge",
    "How long the ring's active key has been signing.",
    ("ring",),
)
ROTATION_INTERVAL = Family(
    "authz_server_key_rotation_interval_seconds",
    "gauge",
    "How long a key of the ring is to sign.",
    ("ring",),
)
SIGNING_KEY_STATE = Family(
    "authz_server_signing_key_state",
    "gauge",
    "1 for the state that a key of the ring is in now.",
    ("ring", "kid", "state"),
)
NEXT_ACTIVATION = Family(
    "authz_server_key_next_activation_timestamp",
    "gauge",
    "When the ring's next key begins to sign, in seconds since 1970; absent while none is planned.",
    ("ring",),
)
LATEST_EPOCH = Family(
    "authz_server_key_ring_latest_epoch",
    "gauge",
    "The number of the ring's last change.",
    ("ring",),
)
NODE_EPOCH = Family(
    "authz_server_key_ring_epoch",
    "gauge",
    "The number of the ring's last change that a process has seen; of those that run.",
    ("ring", "node"),
)
NODE_CLOCK_OFFSET = Family(
    "authz_server_key_node_clock_offset_seconds",
    "gauge",
    "The database's clock less that of the process's machine.",
    ("node",),
)

# -------------------------------------------------------- counted by the processes that serve

SIGN_SECONDS = Family(
    "authz_server_key_sign_seconds",
    "histogram",
    "How long calls for signatures to remote backends took, by their result: ok, unavailable, "
    "denied, unusable or broken.",
    ("backend", "alg", "result"),
    (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.5),
)
SIGN_MISMATCH = Family(
    "authz_server_key_sign_mismatch_total",
    "counter",
    "Signatures that did not belong to the published key, and were dropped.",
    ("ring",),
)
BATCH_SIZE = Family(
    "authz_server_key_batch_size",
    "histogram",
    "How many signatures one call to a remote backend asked for.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200),
)
KEY_ALARMS = Family(
    "authz_server_key_alarms_total",
    "counter",
    "What an operator has to look at, by the alarm's name.",
    ("alarm",),
)
BACKEND_UP = Family(
    "authz_server_key_backend_up",
    "gauge",
    "Whether a key backend, or one address of a Vault, answered when it was last asked: 1 or 0.",
    ("backend",),
)
VIEW_SUCCESS = Family(
    "authz_server_key_view_success_timestamp",
    "gauge",
    "When the ring's backend last showed what it holds, in seconds since 1970.",
    ("ring",),
)
VAULT_TOKEN_TTL = Family(
    "authz_server_vault_token_ttl_seconds",
    "gauge",
    "How long the Vault token with the least time left lives on; +Inf: for ever.",
    ("vault",),
)
#: Only between the processes and the page, which says how long is left.
VAULT_TOKEN_EXPIRY = Family(
    "authz_server_vault_token_expiry_timestamp", "gauge", "When the Vault token dies.", ("vault",)
)
VAULT_TOKEN_FULL_TTL = Family(
    "authz_server_vault_token_full_ttl_seconds",
    "gauge",
    "How long the Vault token lived when it was new.",
    ("vault",),
)
JWKS_FETCH = Family(
    "authz_server_jwks_fetch_total",
    "counter",
    "Fetches of the key set, by whether it held the next key of every ring.",
    ("has_next",),
)
UNKNOWN_KID = Family(
    "authz_server_jwks_unknown_kid_total",
    "counter",
    "Tokens presented here that name a key which no ring has.",
)
REQUESTS = Family(
    "authz_server_requests_total",
    "counter",
    "Requests answered at a protocol endpoint, by outcome: ok for a token; active or inactive at "
    "introspection; revoked or nothing at revocation; else the error.",
    ("endpoint", "outcome"),
)
REQUEST_SECONDS = Family(
    "authz_server_request_seconds",
    "histogram",
    "How long a request to a protocol endpoint took, from its last byte to the answer.",
    ("endpoint",),
    (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)
#: Only between the processes and the page, which makes the histogram of them: a process adds
#: up a quarter of a second before it writes, which the library's histogram cannot.
REQUEST_TIMES = Family(
    "authz_server_request_times_total",
    "counter",
    "Requests that took as long as that, and longer than the next lower bound.",
    ("endpoint", "le"),
)
REQUEST_TIMES_SUM = Family(
    "authz_server_request_times_sum_total", "counter", "What they took together.", ("endpoint",)
)
REQUESTS_SHED = Family(
    "authz_server_requests_shed_total",
    "counter",
    "Requests refused unread, because more came than a worker could answer.",
)

# ------------------------------------------ of clients and tokens, from the database at each scrape

SECRETS = Family(
    "authz_server_secrets",
    "gauge",
    "Secrets of enabled clients and resource servers that work and end within so many days; any: "
    "all that work.",
    ("within_days",),
)
CUT_OFFS = Family(
    "authz_server_cut_offs",
    "gauge",
    "Revocations of many tokens at once that are in force: of a client, a key, a scope, or all.",
    ("kind",),
)

#: In the order of ``docs/metrics.md``.
FAMILIES: tuple[Family, ...] = (
    BUILD_INFO,
    STORE_UP,
    SIGNING_KEY_AGE,
    ROTATION_INTERVAL,
    SIGNING_KEY_STATE,
    NEXT_ACTIVATION,
    LATEST_EPOCH,
    NODE_EPOCH,
    NODE_CLOCK_OFFSET,
    SIGN_SECONDS,
    SIGN_MISMATCH,
    BATCH_SIZE,
    KEY_ALARMS,
    BACKEND_UP,
    VIEW_SUCCESS,
    VAULT_TOKEN_TTL,
    VAULT_TOKEN_FULL_TTL,
    JWKS_FETCH,
    UNKNOWN_KID,
    REQUESTS,
    REQUEST_SECONDS,
    REQUESTS_SHED,
    SECRETS,
    CUT_OFFS,
)
