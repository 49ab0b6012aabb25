"""A state folder of its own for each test process that runs beside another (`pytest -n 3 -p tests.early`).

Loaded before Django's settings, which read the folder. Not for: the database, which pytest-django names anew.
"""

import os
from pathlib import Path

if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    state = Path(os.environ["GATEHOUSE_STATE"]) / worker
    state.mkdir(parents=True, exist_ok=True)
    os.environ["GATEHOUSE_STATE"] = str(state)
