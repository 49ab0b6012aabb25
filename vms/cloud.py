"""Check what a person puts into cloud-init. Not for: writing the seed, which `vms.specs` does."""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from django.conf import settings
from django.utils.translation import gettext as _
from jsonschema import Draft4Validator

#: What PyYAML raises for text that is none, or a value that is not what its own tag says (`!!bool maybe`).
NO_YAML = (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError)
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
#: Values of a document with its anchors written out: a few lines of them can stand for billions.
MAX_NODES = 20_000
#: What the portal itself writes, and what would keep cloud-init from heeding it: `user` replaces the image's
#: own user, `preserve_hostname` keeps the image's name, and a list of modules may leave out those that make
#: people and their keys. A person's own document may not fight with it.
OURS = (
    "hostname",
    "fqdn",
    "preserve_hostname",
    "disable_root",
    "ssh_pwauth",
    "user",
    "cloud_init_modules",
)


class Invalid(ValueError):
    """A value that cloud-init would refuse or misread; the text is a sentence for the person."""


@lru_cache(maxsize=2)
def _validator(path: Path) -> Draft4Validator:
    return Draft4Validator(json.loads(path.read_text()))


def check_user_data(text: str, login: str = "") -> dict[str, Any]:
    """Return the parsed #cloud-config document, {} when empty.

    Validates against cloud-init's own schema as the image build took it from the Debian package. `login` is
    the user that the portal makes, '' while nobody chose one. Raises Invalid naming the first place that is
    wrong.
    """
    if not text.strip():
        return {}
    if len(text.encode()) > MAX_USER_DATA:
        raise Invalid(_("User-data is limited to %(most)d KiB.") % {"most": MAX_USER_DATA // 1024})
    if not text.startswith("#cloud-config"):
        raise Invalid(_("User-data must start with the line #cloud-config."))
    try:
        document = yaml.safe_load(text)
    except NO_YAML as error:
        raise Invalid(_no_yaml(text, error)) from error
    if document is None:
        return {}
    if _written_out(document, {}) > MAX_NODES:
        raise Invalid(_("User-data repeats itself by anchors (& and *) far too often; write it out."))
    if not isinstance(document, dict):
        raise Invalid(_("User-data must be a mapping of cloud-init's keys."))
    for key in OURS:
        if key in document:
            raise Invalid(_("The portal sets %(key)s itself; leave it out.") % {"key": key})
    if not isinstance(document.get("users", []), list) or not isinstance(document.get("packages", []), list):
        raise Invalid(_("`users` and `packages` must be lists."))
    _check_schema(document, text)
    for index, entry in enumerate(document.get("users", [])):
        if contends(entry, login):
            sentence = _(
                "%(line)s The portal makes the first user itself; name another in each entry of users."
            )
            raise Invalid(sentence % {"line": _place_of(text, ["users", index])})
    return document


def contends(entry: Any, login: str) -> bool:
    """Tell whether an entry of `users` would have a say in the user `login` that the portal makes.

    cloud-init lays entries of one name over each other. One that names nobody, or `default`, is for the
    image's own user, who mostly is that very user, and its keys then take the place of the portal's. The bare
    word `default` brings no values and harms nothing.
    """
    return isinstance(entry, dict) and entry.get("name", "default") in ("default", login)


def _written_out(value: Any, known: dict[int, int]) -> int:
    """Count the values in `value` as if every anchor were written out; `known` remembers each once.

    One within itself counts as endless.
    """
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = MAX_NODES
        parts = value if isinstance(value, list) else [*value, *value.values()]
        known[id(value)] = 1 + sum(_written_out(part, known) for part in parts)
    return known[id(value)]


def _no_yaml(text: str, error: Exception) -> str:
    """Return the sentence for text that is no YAML, with the line where the parser stopped."""
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        problem = getattr(error, "problem", None) or _("it cannot be read")
        said = {"line": _line(text, mark.line), "problem": problem}
        return _("%(line)s This is not valid YAML: %(problem)s.") % said
    if isinstance(error, yaml.reader.ReaderError):
        at = text.count("\n", 0, error.position)
        return _("%(line)s It holds a character that YAML does not allow.") % {"line": _line(text, at)}
    return _("This is not valid YAML.")


def _line(text: str, index: int) -> str:
    """Return 'Line 3 (the text of it):', counted from `index` 0."""
    lines = text.splitlines()
    shown = lines[index].strip()[:60] if index < len(lines) else ""
    printable = "".join(letter for letter in shown if letter.isprintable())
    if not printable:
        return _("Line %(number)d:") % {"number": index + 1}
    return _("Line %(number)d (%(text)s):") % {"number": index + 1, "text": printable}


def _place_of(text: str, path: Sequence[Any]) -> str:
    """Return the line of `text` in which what `path` leads to stands, '' for the whole document."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    index = None
    for part in path:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            index = node.start_mark.line
            continue
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        found = [pair for pair in pairs if pair[0].value == str(part)]
        if not found:
            break
        index, node = found[-1][0].start_mark.line, found[-1][1]
    return "" if index is None else _line(text, index)


def _check_schema(document: dict[str, Any], text: str) -> None:
    try:
        json.dumps(document)
    except (TypeError, ValueError) as error:
        raise Invalid(_("User-data may hold only text, numbers, lists and mappings.")) from error
    problems = sorted(
        _validator(settings.CLOUD_CONFIG_SCHEMA).iter_errors(document), key=lambda error: list(error.path)
    )
    if problems:
        first = _deepest(problems[0])
        said = {
            "line": _place_of(text, [*first.absolute_path, *_unexpected(first)]),
            "where": ".".join(str(part) for part in first.absolute_path) or _("the top level"),
            "problem": first.message[:200],
        }
        sentence = _("%(line)s cloud-init would refuse this at %(where)s: %(problem)s") % said
        raise Invalid(sentence.strip())


def _deepest(problem: Any) -> Any:
    """Return what is wrong inside of what matches none of several forms: that is where people look."""
    while problem.context:
        problem = max(problem.context, key=lambda error: len(error.absolute_path))
    return problem


def _unexpected(problem: Any) -> list[Any]:
    """Return the first key that a mapping must not have, if that is what is wrong."""
    if problem.validator != "additionalProperties" or not isinstance(problem.instance, dict):
        return []
    known = problem.schema.get("properties", {})
    return [key for key in problem.instance if key not in known][:1]


def check_ssh_keys(text: str) -> list[str]:
    """Return the public keys, one a line. Raises Invalid naming the first line that is none."""
    keys = [line.strip() for line in text.splitlines() if line.strip()]
    for number, key in enumerate(keys, 1):
        if "PRIVATE KEY" in key:
            raise Invalid(_("This is a private key. Keep it secret and paste the .pub file instead."))
        if not SSH_KEY.fullmatch(key):
            raise Invalid(_("Line %(number)d is no SSH public key.") % {"number": number})
    return keys


def check_packages(text: str) -> list[str]:
    """Return Debian package names parted by spaces, commas or lines. Raises Invalid."""
    names = re.split(r"[\s,]+", text.strip()) if text.strip() else []
    for name in names:
        if not PACKAGE.fullmatch(name):
            raise Invalid(_("%(name)r is no package name.") % {"name": name[:40]})
    return names
