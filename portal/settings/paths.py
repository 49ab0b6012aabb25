"""Where the code and the state are; every other settings file starts from here.

GATEHOUSE_STATE  folder of all state (default: var/ beside manage.py)
"""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent.parent
STATE_DIR = Path(os.environ.get("GATEHOUSE_STATE", BASE_DIR / "var"))
STATE_DIR.mkdir(parents=True, exist_ok=True)
