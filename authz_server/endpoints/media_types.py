"""Compare ``Content-Type`` with the media types that are read (RFC 9110, 8.3)."""

from functools import lru_cache


@lru_cache(maxsize=64)
def is_media_type(
    content_type: str, media_types: frozenset[str], character_sets: frozenset[str]
) -> bool:
    """Return whether a ``Content-Type`` is one of these media types, in one of these encodings.

    Other parameters and empty ones are ignored (RFC 2045, 5; RFC 9110, 5.6.6).

    Args:
        content_type: the value of the field.
        media_types: the media types, in lower case.
        character_sets: the values that ``charset`` may have, in lower case.
    """
    media_type, *parameters = (part.strip().lower() for part in content_type.split(";"))
    if media_type not in media_types:
        return False
    pairs = [parameter.partition("=") for parameter in parameters if parameter]
    sets = [value.strip().strip('"') for name, _, value in pairs if name.strip() == "charset"]
    return len(sets) <= 1 and character_sets.issuperset(sets)
