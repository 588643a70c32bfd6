"""The audit trail: search, export, verify, and reconstruct who could do something."""
