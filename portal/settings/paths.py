"""Where the code and the state are; every other settings file starts from here.

GATEHOUSE_STATE  folder of all state (default: var/ beside manage.py)
"""

import os
from collections.abc import Callable
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent.parent
STATE_DIR = Path(os.environ.get("GATEHOUSE_STATE", BASE_DIR / "var"))
STATE_DIR.mkdir(parents=True, exist_ok=True)


def static_root(code: Path, state: Path) -> Path:
    """Return the folder of collected static files: an image's beside the code, else the state's.

    A container's state is a volume, which outlives the image: its files would be those of the version before.
    """
    own = code / "collected"
    return own if own.is_dir() else state / "static"


def made_once(path: Path, make: Callable[[], str]) -> str:
    """Return the secret in the file `path`, making it (mode 600) when it is not there.

    Two racing processes agree on one.
    """
    staged = path.with_name(f"{path.name}.{os.getpid()}")
    if not path.exists():
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as handle:
            handle.write(make())
        try:
            os.link(staged, path)
        except FileExistsError:
            # Another process was first; its secret is the one.
            staged.unlink()
        else:
            staged.unlink()
    return path.read_text().strip()
