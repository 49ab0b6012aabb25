"""Sentences of services are marked for translation, as docs/change.md says."""

import ast
from pathlib import Path

import pytest
from django.conf import settings

SENTENCES = {"Denied", "Invalid", "ValidationError", "check_estate", "_in_the_bin"}
ROOMS = ("portal", "vms", "networks")
#: Read by the worker's operators in a step's log, not by who asked.
EXCEPT = {"vms/specs.py"}


def unmarked(tree):
    """Return the lines that hand a bare text with a space in it to what tells people a sentence."""
    for call in ast.walk(tree):
        name = isinstance(call, ast.Call) and getattr(call.func, "id", getattr(call.func, "attr", ""))
        for given in call.args if name in SENTENCES else ():
            bare = isinstance(given, ast.JoinedStr) or isinstance(getattr(given, "value", None), str)
            if bare and " " in ast.unparse(given):
                yield call.lineno


@pytest.mark.parametrize("room", ROOMS)
def test_what_people_are_told_is_marked(room):
    """Red when a Denied anywhere is raised with a text that is not in `_()`."""
    files = [path.relative_to(settings.BASE_DIR) for path in (settings.BASE_DIR / room).rglob("*.py")]
    assert len(files) > 10
    found = [
        f"{path}:{line}"
        for path in files
        if str(path) not in EXCEPT
        for line in unmarked(ast.parse(Path(settings.BASE_DIR, path).read_text()))
    ]
    assert found == []


def test_bare_sentences_are_seen():
    seen = unmarked(ast.parse('Denied("No room.")\nDenied(f"No {x}.")\nDenied(_("No room."), field="a b")'))
    assert list(seen) == [1, 2]
