"""The probe: hostile tokens and proofs against any API."""
