"""Whether enough different people could serve all levels of one request. Not for: who may decide now.

Nobody decides twice on one request, so levels that the same few people could decide on may each look well
and still never be approved together. It is told, and nothing is refused: roles may be given later.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from portal.operations.policies import deciders
from portal.operations.policies.rules import Level

#: Names shown of those who could decide.
NAMES = 5


@dataclass(frozen=True)
class TooFew:
    """Levels, by their numbers, that need more different people together than could decide on any of them."""

    levels: tuple[int, ...]
    needed: int
    names: tuple[str, ...]

    def __str__(self) -> str:
        if not self.names:
            return _("Nobody could decide on level %(level)d.") % {"level": self.levels[0]}
        words = {
            "levels": _(" and ").join(map(str, self.levels)),
            "needed": self.needed,
            "names": _(", ").join(self.names[:NAMES]) + (", …" if len(self.names) > NAMES else ""),
        }
        if len(self.levels) == 1:
            text = _("Level %(levels)s needs %(needed)d people, and only these could decide: %(names)s.")
            return text % words
        text = ngettext(
            "Levels %(levels)s need %(needed)d different people, since nobody decides twice on one request, "
            "and only %(names)s could decide.",
            "Levels %(levels)s need %(needed)d different people, since nobody decides twice on one request, "
            "and only these could decide: %(names)s.",
            len(self.names),
        )
        return text % words


class Deciders:
    """Who could decide on each level in some projects, read once: a query a level."""

    def __init__(self, levels: Mapping[int, Level], projects: Collection[int]) -> None:
        self._levels = levels
        self._found = {
            number: deciders.by_project(level, projects) for number, level in levels.items()
        }

    def too_few(self, project: int | None, never: Collection[int]) -> TooFew | None:
        """Return the fewest levels of a request for `project` for which people lack, the first that come.

        `never` are those who may not decide: the requester, and whoever decided on it already.
        """
        people = {number: self._people(number, project, never) for number in self._levels}
        for count in range(1, len(people) + 1):
            for numbers in combinations(sorted(people), count):
                needed = sum(self._levels[number].needed for number in numbers)
                could = _joined(people[number] for number in numbers)
                # Enough for each such group is enough for all (Hall's theorem).
                if len(could) < needed:
                    return TooFew(numbers, needed, tuple(sorted(could.values())))
        return None

    def _people(self, number: int, project: int | None, never: Collection[int]) -> dict[int, str]:
        found = self._found[number]
        holders = _joined(found.get(where, {}) for where in {None, project})
        return {person: name for person, name in holders.items() if person not in never}


def _joined(some: Iterable[Mapping[int, str]]) -> dict[int, str]:
    return {person: name for each in some for person, name in each.items()}


def clash(levels: Mapping[int, Level], project: int | None, never: Collection[int]) -> str:
    """Return in a sentence which levels could not both be served, '' when enough people are there.

    Of a single level that has too few people the forecast of that level tells.
    """
    if len(levels) < 2:
        return ""
    found = Deciders(levels, [] if project is None else [project]).too_few(project, never)
    return str(found) if found and len(found.levels) > 1 else ""


def numbered(levels: Sequence[Level]) -> dict[int, Level]:
    """Return levels by their numbers, counted from 1."""
    return dict(enumerate(levels, 1))
