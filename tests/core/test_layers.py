"""The ways around the layers that import-linter does not see, as docs/change.md says."""

import ast
from pathlib import Path

import pytest
from django.conf import settings

ROOMS = ("portal", "networks", "vms")
#: Modules, or packages of that name, that serve people: of the drivers they know values and errors alone.
SERVING = {"views", "forms", "services", "consumer", "consumers"}
KNOWN = ("portal.drivers.types", "portal.drivers.errors")
#: Whoever hears of a row by these depends on its room without an import that says so.
AROUND = ("django.db.models.signals", "django.core.signals", "django.dispatch")


def imported(tree):
    """Return what a module imports, `package.name` for a name that is taken from a package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def under(name, *packages):
    return any(f"{name}.".startswith(f"{package}.") for package in packages)


def faults(path, tree):
    """Return what a module does that no module of its place may."""
    outside = not under(".".join(path.parts), "portal.drivers")
    serves = outside and not SERVING.isdisjoint({*path.parts[:-1], path.stem})
    for line, name in imported(tree):
        if outside and under(name, "libvirt", "docker"):
            yield line, "asks a hypervisor itself"
        if serves and under(name, "portal.drivers") and not under(name, *KNOWN):
            yield line, "knows more of the drivers than types and errors"
        if under(name, *AROUND):
            yield line, "listens to signals"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "get_model" and "migrations" not in path.parts:
            yield node.lineno, "takes a model by its name"


@pytest.mark.parametrize("room", ROOMS)
def test_no_module_goes_around_the_layers(room):
    """Red when a service imports portal.drivers.pool, or any room libvirt, signals or get_model."""
    files = sorted(path.relative_to(settings.BASE_DIR) for path in (settings.BASE_DIR / room).rglob("*.py"))
    assert len(files) > 10
    found = [
        f"{path}:{line} {fault}"
        for path in files
        for line, fault in faults(path, ast.parse(Path(settings.BASE_DIR, path).read_text()))
    ]
    assert found == []


def test_tags_for_templates_belong_to_the_lowest_room_alone():
    found = {path.parent for room in ROOMS for path in (settings.BASE_DIR / room).rglob("templatetags")}
    assert found == {settings.BASE_DIR / "portal/core"}


def test_ways_around_are_seen():
    code = """
import libvirt
from docker import from_env
from portal.drivers import pool
from portal.drivers.types import DomainSpec
from django.db.models.signals import post_save
apps.get_model("vms", "Disk")
"""
    seen = [fault for _line, fault in faults(Path("vms/services/asking.py"), ast.parse(code))]
    assert seen == [
        "asks a hypervisor itself",
        "asks a hypervisor itself",
        "knows more of the drivers than types and errors",
        "listens to signals",
        "takes a model by its name",
    ]
    driver = faults(Path("portal/drivers/libvirt/services.py"), ast.parse("import libvirt"))
    assert list(driver) == []
