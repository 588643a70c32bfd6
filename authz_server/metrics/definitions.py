"""Declarations of all metrics: name, kind, labels and help text.

``docs/metrics.md`` repeats the help texts.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]
#: How ``prometheus_client`` combines the values of several processes.
Mode = Literal["livemax", "livemin", "livemostrecent", "max"]

#: All alarms of the server; a key backend from a plugin may raise others.
ALARMS = (
    "backend.disabled",
    "clock.leapt",
    "clock.off",
    "floor.changed_externally",
    "key.absent",
    "key.not_adopted",
    "node.behind",
    "privilege.too_wide",
    "ring.no_active_key",
    "ring.no_standby",
    "rotation.failed",
    "vault.denied",
    "vault.secret_id_intercepted",
)


RINGS: Literal["rings"] = "rings"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric.

    Attributes:
        name: the exposed name; a counter's ends with ``_total``.
        kind: the kind of metric.
        sentence: the help text.
        labels: the names of the labels.
        buckets: the upper bounds of a histogram.
        zeros: the labels of values that are 0 until they are counted; ``RINGS``: each ring's. A
            counter that starts at 1 shows no increase.
        mode: how to combine a gauge that processes record.
        exported: False for a metric that the exporter converts to another one.
    """

    name: str
    kind: Kind
    sentence: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    zeros: tuple[tuple[str, ...], ...] | Literal["rings"] = ()
    mode: Mode = "max"
    exported: bool = True


# ------------------------------------------------- of the rings, from the database at each scrape

BUILD_INFO = Family(
    "authz_server_build_info", "gauge", "Always 1, with the server's version.", ("version",)
)
READY = Family(
    "authz_server_ready",
    "gauge",
    "Whether a condition of readiness holds at this scrape: 1 or 0.",
    ("check",),
)
STORE_UP = Family(
    "authz_server_key_store_up",
    "gauge",
    "Whether the rings could be read from the database at this scrape: 1 or 0.",
)
SIGNING_KEY_AGE = Family(
    "authz_server_signing_key_age_seconds",
    "gauge",
    "Time since the ring's active key became active.",
    ("ring",),
)
ROTATION_INTERVAL = Family(
    "authz_server_key_rotation_interval_seconds",
    "gauge",
    "Rotation interval of the ring.",
    ("ring",),
)
SIGNING_KEY_STATE = Family(
    "authz_server_signing_key_state",
    "gauge",
    "1 for the current state of a key of the ring.",
    ("ring", "kid", "state"),
)
NEXT_ACTIVATION = Family(
    "authz_server_key_next_activation_timestamp",
    "gauge",
    "Time at which the ring's next key becomes active, in seconds since 1970; absent if none "
    "is planned.",
    ("ring",),
)
LATEST_EPOCH = Family(
    "authz_server_key_ring_latest_epoch",
    "gauge",
    "Number of the ring's latest change.",
    ("ring",),
)
NODE_EPOCH = Family(
    "authz_server_key_ring_epoch",
    "gauge",
    "Number of the ring's latest change that a running node has seen.",
    ("ring", "node"),
)
NODE_CLOCK_OFFSET = Family(
    "authz_server_key_node_clock_offset_seconds",
    "gauge",
    "Clock of the database minus the clock of the node's machine.",
    ("node",),
)
CERTIFICATE_END = Family(
    "authz_server_tls_certificate_end_seconds",
    "gauge",
    "Time at which the certificate of a listener or one of its chain ends, in seconds since 1970.",
    ("listener",),
)

# -------------------------------------------------------- counted by the processes that serve

SIGN_SECONDS = Family(
    "authz_server_key_sign_seconds",
    "histogram",
    "Duration of signing requests to remote backends, by result: ok, unavailable, denied, "
    "unusable or broken.",
    ("backend", "alg", "result"),
    (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.5),
)
SIGN_MISMATCH = Family(
    "authz_server_key_sign_mismatch_total",
    "counter",
    "Signatures that did not match the published key and were discarded.",
    ("ring",),
    zeros=RINGS,
)
BATCH_SIZE = Family(
    "authz_server_key_batch_size",
    "histogram",
    "Number of signatures in one request to a remote backend.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200),
)
KEY_ALARMS = Family(
    "authz_server_key_alarms_total",
    "counter",
    "Alarms raised, by name.",
    ("alarm",),
    zeros=tuple((alarm,) for alarm in ALARMS),
)
BACKEND_UP = Family(
    "authz_server_key_backend_up",
    "gauge",
    "Whether a key backend, or one address of a Vault, answered the last request: 1 or 0.",
    ("backend",),
    mode="livemostrecent",
)
VIEW_SUCCESS = Family(
    "authz_server_key_view_success_timestamp",
    "gauge",
    "Time at which the ring's backend was last observed, in seconds since 1970.",
    ("ring",),
    mode="max",
)
VAULT_TOKEN_TTL = Family(
    "authz_server_vault_token_ttl_seconds",
    "gauge",
    "Remaining lifetime of the Vault token that expires first; +Inf if it does not expire.",
    ("vault",),
)
#: The exporter converts it to the remaining time.
VAULT_TOKEN_EXPIRY = Family(
    "authz_server_vault_token_expiry_timestamp",
    "gauge",
    "Expiry of the Vault token.",
    ("vault",),
    mode="livemin",
    exported=False,
)
VAULT_TOKEN_FULL_TTL = Family(
    "authz_server_vault_token_full_ttl_seconds",
    "gauge",
    "Lifetime of the Vault token when it was issued.",
    ("vault",),
    mode="livemax",
)
JWKS_FETCH = Family(
    "authz_server_jwks_fetch_total",
    "counter",
    "Fetches of the JWKS, by whether it held the next key of every ring.",
    ("has_next",),
    zeros=(("true",), ("false",)),
)
UNKNOWN_KID = Family(
    "authz_server_jwks_unknown_kid_total",
    "counter",
    "Presented tokens whose kid is unknown.",
    zeros=((),),
)
REQUESTS = Family(
    "authz_server_requests_total",
    "counter",
    "Requests answered by a protocol endpoint, by outcome: ok for a token; active or inactive"
    " at introspection; revoked or nothing at revocation; otherwise the error.",
    ("endpoint", "outcome"),
)
REQUEST_SECONDS = Family(
    "authz_server_request_seconds",
    "histogram",
    "Duration of requests to a protocol endpoint, from the last byte of the request to the "
    "response.",
    ("endpoint",),
    (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)
#: The exporter converts them to a histogram. A process adds up its requests for a quarter
#: of a second before it writes, which the library's histogram cannot.
REQUEST_TIMES = Family(
    "authz_server_request_times_total",
    "counter",
    "Requests by duration, each in the first bucket that holds it.",
    ("endpoint", "le"),
    exported=False,
)
REQUEST_TIMES_SUM = Family(
    "authz_server_request_times_sum_total",
    "counter",
    "Total duration of requests.",
    ("endpoint",),
    exported=False,
)
REQUESTS_SHED = Family(
    "authz_server_requests_shed_total",
    "counter",
    "Requests refused unread because a worker was overloaded.",
    zeros=((),),
)
COUNTED_ALONE = Family(
    "authz_server_counted_alone_total",
    "counter",
    "Failed authentications, tokens and registration requests that a process counted for itself, "
    "because the store of clients.throttle failed, or had no room for further ids and networks.",
    zeros=((),),
)

PLUGIN_FAILURES = Family(
    "authz_server_plugin_failures_total",
    "counter",
    "Hooks of plugins that failed, by plugin, hook and failure: raised, timed_out, invalid, lost, "
    "or a word of the plugin.",
    ("plugin", "hook", "failure"),
)
SECURITY_EVENTS = Family(
    "authz_server_security_events_total",
    "counter",
    "Security events for resource servers, by delivery (push or poll) and outcome: delivered, "
    "failed, or undelivered if an operator has to see to it.",
    labels=("delivery", "outcome"),
    zeros=(
        ("push", "delivered"),
        ("push", "failed"),
        ("push", "undelivered"),
        ("poll", "delivered"),
        ("poll", "undelivered"),
    ),
)
DOCUMENTS_FETCHED = Family(
    "authz_server_documents_fetched_total",
    "counter",
    "Fetches of documents of clients and issuers.",
    labels=("outcome",),
    zeros=(("ok",), ("failed",), ("refused",)),
)

# ------------------------------------------ of clients and tokens, from the database at each scrape

SECRETS = Family(
    "authz_server_secrets",
    "gauge",
    "Valid secrets of enabled clients and resource servers that expire within this number of "
    "days; any: all valid secrets.",
    ("within_days",),
)
CUT_OFFS = Family(
    "authz_server_cut_offs",
    "gauge",
    "Cut-offs in force, by kind: client, key, scope, audience or all.",
    ("kind",),
)
PENDING_CHANGES = Family(
    "authz_server_pending_changes",
    "gauge",
    "Changes that wait for the approval of a second person.",
)
UNCONFIRMED_EMERGENCIES = Family(
    "authz_server_unconfirmed_emergencies",
    "gauge",
    "Acts that were done without an approval and wait for the confirmation of a second person.",
)

#: Every exported metric, in the order above, which is that of ``docs/metrics.md``.
FAMILIES: tuple[Family, ...] = tuple(
    each for each in list(globals().values()) if isinstance(each, Family) and each.exported
)
