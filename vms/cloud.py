"""Check what a person puts into cloud-init. Not for: writing the seed, which `vms.specs` does."""

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from django.conf import settings
from jsonschema import Draft4Validator

#: RFC 1123 label, as cloud-init and DHCP want a host's name.
HOSTNAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
#: useradd's rule in Debian.
LOGIN = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
#: Debian policy 5.6.1; a version or a release may follow.
PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(?:[=/][A-Za-z0-9.+~:-]+)?")
SSH_KEY = re.compile(
    r"(?:sk-)?(?:ssh|ecdsa)-[a-z0-9@.-]+ [A-Za-z0-9+/]{16,16000}={0,3}(?: [^\x00-\x1f\x7f\"\\]{0,200})?"
)
MAX_USER_DATA = 16 * 1024
#: What the portal itself writes; a person's own document may not fight with it.
OURS = ("hostname", "fqdn", "disable_root", "ssh_pwauth")


class Invalid(ValueError):
    """A value that cloud-init would refuse or misread; the text is a sentence for the person."""


@lru_cache(maxsize=2)
def _validator(path: Path) -> Draft4Validator:
    return Draft4Validator(json.loads(path.read_text()))


def check_user_data(text: str) -> dict[str, Any]:
    """Return the parsed #cloud-config document, {} when empty.

    Validates against cloud-init's own schema as the image build took it from the Debian package. Raises
    Invalid naming the first place that is wrong.
    """
    if not text.strip():
        return {}
    if len(text.encode()) > MAX_USER_DATA:
        raise Invalid(f"User-data is limited to {MAX_USER_DATA // 1024} KiB.")
    if not text.startswith("#cloud-config"):
        raise Invalid("User-data must start with the line #cloud-config.")
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        place = getattr(error, "problem_mark", None)
        line = f" in line {place.line + 1}" if place else ""
        raise Invalid(f"This is not valid YAML{line}.") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise Invalid("User-data must be a mapping of cloud-init's keys.")
    for key in OURS:
        if key in document:
            raise Invalid(f"The portal sets {key} itself; leave it out.")
    if not isinstance(document.get("users", []), list) or not isinstance(document.get("packages", []), list):
        raise Invalid("`users` and `packages` must be lists.")
    _check_schema(document)
    return document


def _check_schema(document: dict[str, Any]) -> None:
    try:
        json.dumps(document)
    except (TypeError, ValueError) as error:
        raise Invalid("User-data may hold only text, numbers, lists and mappings.") from error
    problems = sorted(
        _validator(settings.CLOUD_CONFIG_SCHEMA).iter_errors(document), key=lambda error: list(error.path)
    )
    if problems:
        first = problems[0]
        where = ".".join(str(part) for part in first.path) or "the top level"
        raise Invalid(f"cloud-init would refuse this at {where}: {first.message[:200]}")


def check_ssh_keys(text: str) -> list[str]:
    """Return the public keys, one a line. Raises Invalid naming the first line that is none."""
    keys = [line.strip() for line in text.splitlines() if line.strip()]
    for number, key in enumerate(keys, 1):
        if "PRIVATE KEY" in key:
            raise Invalid("This is a private key. Keep it secret and paste the .pub file instead.")
        if not SSH_KEY.fullmatch(key):
            raise Invalid(f"Line {number} is no SSH public key.")
    return keys


def check_packages(text: str) -> list[str]:
    """Return Debian package names parted by spaces, commas or lines. Raises Invalid."""
    names = re.split(r"[\s,]+", text.strip()) if text.strip() else []
    for name in names:
        if not PACKAGE.fullmatch(name):
            raise Invalid(f"{name[:40]!r} is no package name.")
    return names
