"""The report of a probe, in text, JSON and JUnit."""

import json
from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement, tostring

from authz_verifier.probing.run import Result

FORMATS = ("text", "json", "junit")


def render(results: Sequence[Result], url: str, form: str) -> str:
    """Return the report.

    Args:
        results: of the probe.
        url: of the API.
        form: `text`, `json` or `junit`.
    """
    if form == "json":
        return _json(results, url)
    return _junit(results, url) if form == "junit" else _text(results, url)


def has_findings(results: Sequence[Result], *, strict: bool) -> bool:
    """Return whether an attack was accepted or made the API fail.

    Args:
        results: of the probe.
        strict: count lax results too.
    """
    bad = {"accepted", "failed", "lax"} if strict else {"accepted", "failed"}
    return any(each.verdict in bad for each in results)


def counts(results: Sequence[Result]) -> dict[str, int]:
    """Return the number of results of each verdict, and of refusals without a challenge."""
    verdicts = [each.verdict for each in results]
    numbers = {name: verdicts.count(name) for name in ("refused", "accepted", "lax", "failed")}
    return numbers | {"unchallenged": sum(not each.challenged for each in results)}


def _text(results: Sequence[Result], url: str) -> str:
    lines = [f"{len(results)} attacks on {url}"]
    lines += [
        f"  {each.verdict.upper():8} {each.group}: {each.name} ({each.status or 'no response'})"
        for each in results
        if each.verdict != "refused"
    ]
    found = counts(results)
    if unchallenged := found.pop("unchallenged"):
        lines.append(f"  {unchallenged} responses with 401 have no WWW-Authenticate header")
    lines.append(", ".join(f"{number} {name}" for name, number in found.items()))
    return "\n".join(lines) + "\n"


def _json(results: Sequence[Result], url: str) -> str:
    attacks = [
        {
            "group": each.group,
            "name": each.name,
            "status": each.status,
            "verdict": each.verdict,
            "challenged": each.challenged,
        }
        for each in results
    ]
    return json.dumps({"url": url, **counts(results), "attacks": attacks}, indent=2) + "\n"


def _junit(results: Sequence[Result], url: str) -> str:
    found = counts(results)
    suite = Element(
        "testsuite",
        name=f"authz-verifier probe {url}",
        tests=str(len(results)),
        failures=str(found["accepted"]),
        errors=str(found["failed"]),
        skipped=str(found["lax"]),
    )
    for each in results:
        case = SubElement(suite, "testcase", classname=each.group, name=each.name)
        message = f"status {each.status or 'none'}"
        kind = {"accepted": "failure", "failed": "error", "lax": "skipped"}.get(each.verdict)
        if kind:
            SubElement(case, kind, message=f"{each.verdict}: {message}")
    return tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
