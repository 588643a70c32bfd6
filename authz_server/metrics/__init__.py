"""Metrics: definitions, recording in each process, and the page that exports them."""
