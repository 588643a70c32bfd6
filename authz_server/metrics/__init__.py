"""Metrics: definitions, recording in each process, and the exporter."""
