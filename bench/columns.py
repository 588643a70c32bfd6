"""The columns of each kind of table."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Column(NamedTuple):
    """One column: its title, the value in it, how it is written and in which unit."""

    title: str
    name: str
    form: str = ",.0f"
    divisor: float = 1

    def cell(self, values: Mapping[str, Any]) -> str:
        """Return what stands in a line with these values; empty if it has none."""
        value = values.get(self.name)
        return "" if value is None else format(value / self.divisor, self.form)


_CPU = Column("CPU µs per request", "processor_microseconds")
_RATIOS = (
    Column("times bare WSGI", "bare_wsgi", ".2f"),
    Column("times bare Flask", "bare_flask", ".2f"),
    Column("times node-oidc-provider", "node_oidc_provider", ".2f"),
)
_QUANTILES = (Column("p50 µs", "p50_microseconds"), Column("p99 µs", "p99_microseconds"))
_MILLISECONDS = 1_000

COLUMNS: Mapping[str, tuple[Column, ...]] = {
    "closed": (
        _CPU,
        Column("database's CPU µs", "database_processor_microseconds"),
        Column("requests/s", "requests_per_second"),
        *_QUANTILES,
        *_RATIOS,
    ),
    "clients": (
        _CPU,
        Column("database's CPU µs", "database_processor_microseconds"),
        Column("requests/s", "requests_per_second"),
        *_QUANTILES,
        Column("times client_secret_post", "form_secret", ".2f"),
        Column("times node-oidc-provider doing the same", "node_oidc_provider", ".2f"),
    ),
    "latency": (
        Column("requests/s", "rate"),
        _CPU,
        *_QUANTILES,
        Column("p99 / p50", "p99_to_p50", ".1f"),
        Column("generator late by, p99 µs", "lateness_p99_microseconds"),
        *_RATIOS,
    ),
    "overload": (
        Column("capacity/s", "capacity"),
        Column("offered/s", "offered"),
        Column("served/s", "goodput"),
        Column("share of capacity", "share_of_capacity", ".0%"),
        Column("refused by 503/s", "refused"),
        Column("not answered/s", "unanswered"),
        Column("refused: p50 ms", "refused_p50_microseconds", ",.1f", _MILLISECONDS),
        Column("refused: p99 ms", "refused_p99_microseconds", ",.1f", _MILLISECONDS),
        Column("served: p99 ms", "served_p99_microseconds", ",.1f", _MILLISECONDS),
        Column("at 80 %: p99 ms", "usual_p99_microseconds", ",.1f", _MILLISECONDS),
        Column("times the p99 at 80 %", "served_p99_to_usual", ",.1f"),
        Column("normal again after s", "recovery_seconds", ".1f"),
    ),
    "status": (
        Column("all lists, s", "build_seconds", ",.2f"),
        Column("all lists, kB", "bytes", ",.0f", 1_000),
        Column("one list, kB", "bytes_of_list", ",.0f", 1_000),
        Column("revoked to visible, ms", "visible_milliseconds", ",.1f"),
    ),
    "forms": (
        Column("tokens of a request", "tokens"),
        Column("CPU µs for each token", "processor_microseconds", ",.0f"),
    ),
    "verifier": (
        Column("CPU µs", "processor_microseconds", ",.1f"),
        Column("beside the first line, µs", "added_microseconds", ",.1f"),
        Column("times the first line", "floor", ".2f"),
    ),
    "guarded": (
        _CPU,
        Column("beside no guard, µs", "added_microseconds"),
        Column("times no guard", "floor", ".2f"),
        Column("authorization server's CPU µs", "database_processor_microseconds"),
        Column("requests/s", "requests_per_second"),
        *_QUANTILES,
    ),
    "keys": (
        Column("connections", "connections"),
        Column("signatures/s", "signatures_per_second"),
        Column("share of the best", "share_of_best", ".0%"),
        Column("client's CPU µs", "client_processor_microseconds"),
        Column("OpenBao's CPU µs", "vault_processor_microseconds"),
        Column("its CPU, times the best", "vault_times_best", ".2f"),
        *_QUANTILES,
    ),
}
#: Ratios inside one line: left out like the others when the machine was busy.
RATIOS_OF_ONE_LINE = ("p99_to_p50", "share_of_capacity", "served_p99_to_usual")
