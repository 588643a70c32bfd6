"""The preferences of a sender, as ``Accept`` and similar fields state them (RFC 9110, 12.4)."""

import re

_QUALITY = re.compile(r"q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)", re.ASCII)


def read_qualities(field: str) -> dict[str, float]:
    """Return the quality of each range, in lower case and in the order of the field.

    A range with a malformed quality or with other parameters is left out. The time is
    linear in the length of the field.

    Args:
        field: the value of the field.
    """
    qualities: dict[str, float] = {}
    for part in field.lower().split(","):
        name, *parameters = (each.strip() for each in part.split(";"))
        parameters = [each for each in parameters if each]
        quality = 1.0
        if parameters:
            found = _QUALITY.fullmatch(parameters[0]) if len(parameters) == 1 else None
            if found is None:
                continue
            quality = float(found[1])
        qualities.setdefault(name, quality)
    return qualities
