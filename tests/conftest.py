"""Fixtures and habits of the whole suite."""

import os

from hypothesis import HealthCheck, settings

pytest_plugins = [
    "support.run",
    "support.authorities",
    "support.databases",
    "support.prepared",
    "support.compiled_statements",
    "support.compiled_rules",
    "support.entry_points",
    "support.cheap_argon2",
    "support.database_clock",
    "support.not_run",
    "support.node",
    "support.browser",
    "support.case_table",
    "support.watching",
    "support.application",
    "support.edge",
    "support.stage",
    "support.openbao",
    "support.softhsm",
]

settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile(
    "thorough",
    deadline=None,
    max_examples=2_000,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
