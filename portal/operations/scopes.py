"""What counters count for: the words of a scope and the default that stands above it.

`project:3`          what a project may take
`person:7`           what a person may take in all projects together
`project:3/person:7` what a person may take in one project
`host:2`, `pool:5`   what there is; the room of hosts makes these

A default is called like its scopes without the last key: `project`, `person`, `project:3/person`.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from portal.accounts.models import Project, User

#: The defaults that hold for the whole portal.
EVERY_PROJECT, EVERY_PERSON = "project", "person"
_KEY = r"\d{1,18}"
_SCOPE = re.compile(rf"(?:project:(?P<project>{_KEY}))?(?:(?:^|/)person:(?P<person>{_KEY}))?")


@dataclass(frozen=True)
class Place:
    """The keys of the project and the person that a scope or a default names, 0 for each it does not."""

    project: int = 0
    person: int = 0


def of_project(project: Any) -> str:
    """Return the scope of all that `project` takes."""
    return f"project:{project.pk}"


def of_person(person: Any) -> str:
    """Return the scope of all that `person` takes, wherever."""
    return f"person:{person.pk}"


def of_member(project: Any, person: Any) -> str:
    """Return the scope of what `person` takes in `project`."""
    return f"project:{project.pk}/person:{person.pk}"


def each_member_of(project: Any) -> str:
    """Return the default of what one person takes in `project`."""
    return f"project:{project.pk}/person"


def default_above(scope: str) -> str:
    """Return the default that `scope` follows while it has no limit of its own, '' when it follows none."""
    above = scope.rpartition(":")[0]
    return above if above in {EVERY_PROJECT, EVERY_PERSON} or above.endswith("/person") else ""


def is_default(scope: str) -> bool:
    """Tell whether `scope` is a default and counts nothing itself."""
    return scope in {EVERY_PROJECT, EVERY_PERSON} or scope.endswith("/person")


def topic(scope: str) -> str:
    """Return the topic of live pages that show what is taken of `scope`."""
    return f"operations.quota:{scope.replace('/', '.')}"


def place_of(scope: str) -> Place:
    """Return whom a quota's scope or default is about. Raises ValueError for a scope that is no quota's."""
    if scope in {EVERY_PROJECT, EVERY_PERSON}:
        return Place()
    found = _SCOPE.fullmatch(scope.removesuffix("/person"))
    if not scope or found is None:
        raise ValueError(f"{scope} is no scope of a quota")
    return Place(int(found["project"] or 0), int(found["person"] or 0))


def titles(scopes: Collection[str]) -> dict[str, str]:
    """Return what people call each scope of a quota: `the project Example`. At most two queries."""
    places = {}
    for scope in scopes:
        try:
            places[scope] = place_of(scope)
        except ValueError:
            continue  # a host or a pool, whose counter holds its title
    in_projects = Project.objects.filter(pk__in={place.project for place in places.values()})
    of_people = User.objects.filter(pk__in={place.person for place in places.values()})
    projects = dict(in_projects.values_list("pk", "name"))
    people = dict(of_people.values_list("pk", "username"))
    return {
        scope: _title(scope, projects.get(place.project, ""), people.get(place.person, ""))
        for scope, place in places.items()
    }


def _title(scope: str, project: str, person: str) -> str:
    if scope == EVERY_PROJECT:
        return _("every project without limits of its own")
    if scope == EVERY_PERSON:
        return _("every person without limits of their own")
    if scope.endswith("/person"):
        return _("each person in the project %(project)s") % {"project": project}
    if project and person:
        return _("%(person)s in the project %(project)s") % {"person": person, "project": project}
    if person:
        return _("%(person)s in all projects") % {"person": person}
    return _("the project %(project)s") % {"project": project}
