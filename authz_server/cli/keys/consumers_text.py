"""The readers of the JWKS that know the key that signs next, as text."""

from authz_server.cli.plain_text import timestamp
from authz_server.operations.keys.consumers import StandbyConsumers
from keys.plurals import counted

#: The number of readers that are named; JSON has all.
NAMED_READERS = 10
_DAY_SECONDS = 86_400


def consumer_lines(consumers: StandbyConsumers | None) -> list[str]:
    """Return the lines about the readers."""
    if consumers is None:
        return ["No key waits to sign, so that no reader has to fetch one."]
    window = _window(consumers.window_seconds)
    if not consumers.seen:
        return [f"No reader of the JWKS was seen in {window}."]
    missing = consumers.missing
    has = "has" if consumers.fetched_since == 1 else "have"
    lines = [
        f"{consumers.fetched_since} of {counted(consumers.seen, 'reader')} of the JWKS seen in "
        f"{window} {has} fetched it since {timestamp(consumers.published_at)}"
        + ("; missing:" if missing else ".")
    ]
    lines += [
        f"  {each.user_agent or 'no user agent'} ({each.network or 'unknown network'}), "
        f"last at {timestamp(each.last_fetched_at)}"
        for each in missing[:NAMED_READERS]
    ]
    if len(missing) > NAMED_READERS:
        lines.append(f"  and {len(missing) - NAMED_READERS} more")
    if missing and consumers.gate == "binding":
        lines.append("Until they have, the key does not begin to sign by itself.")
    return lines


def _window(seconds: int) -> str:
    if seconds % _DAY_SECONDS:
        return f"{seconds} s"
    return counted(seconds // _DAY_SECONDS, "day")
