"""The guard of an application, from the environment; the floor has none."""

import json
import os
from typing import Any

GUARD = os.environ.get("BENCH_GUARD", "")
ISSUER = os.environ["BENCH_ISSUER"]
AUDIENCE = os.environ["BENCH_AUDIENCE"]
SCOPE = os.environ["BENCH_SCOPE"]
#: The settings of authz-verifier.
SETTINGS: dict[str, Any] = json.loads(os.environ.get("BENCH_SETTINGS", "{}"))
