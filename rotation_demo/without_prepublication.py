"""`authz-server` with pre-publication switched off, which the settings refuse.

For the demonstration alone: a key signs as soon as it exists, as in many systems, and one sees that
verifiers which cache the JWKS then refuse good tokens. The server starts its workers as new
interpreters, which load this module again before anything else: so the switch is here, at the top.
"""

from authz_server.cli import main
from authz_server.settings.keys import KeySettings


def _none(settings: KeySettings, ring: str) -> int:
    del settings, ring
    return 0


def _admit(settings: KeySettings, name: str) -> None:
    del settings, name


KeySettings.prepublication_seconds = _none
KeySettings._require_durations = _admit  # noqa: SLF001 - the very rule that is to be missing

if __name__ == "__main__":
    main()
