"""The demonstration: from nothing to a token that is issued, accepted, confirmed and revoked."""
