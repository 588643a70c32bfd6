"""Orders to the key rings of an application, as an operator's commands give them."""

from authz_server.assembly import Services
from authz_server.key_rings.backends import ring_rules
from keys.lifecycle.rotator import Rotator


def rotator_of(services: Services) -> Rotator:
    """Return a rotator that may ask for everything, on the application's own parts."""
    return Rotator(
        store=services.key_store,
        backends=services.key_backends,
        rules=ring_rules(services.settings, "order"),
        clock=services.clock,
        timing=services.settings.keys.timing(),
    )
