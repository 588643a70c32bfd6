"""Numbers with their nouns in messages."""


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun, such as ``1 record`` and ``2 records``.

    Args:
        number: how many there are.
        one: the noun, or more words, for 1.
        many: those for other numbers; empty: the same with an ``s``.
    """
    return f"{number} {one if number == 1 else many or f'{one}s'}"
