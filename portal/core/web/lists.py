"""Lists that the server sorts by a column named in the address."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from django.core.paginator import Page, Paginator
from django.db.models import QuerySet
from django.http import HttpRequest

#: Characters of a search that are looked for: as many as an e-mail address has at most; no name is longer.
LONGEST_SEARCH = 254


def search_of(request: HttpRequest) -> str:
    """Return what the address asks for by `q`, '' for nothing; never with NUL, an error on PostgreSQL."""
    return request.GET.get("q", "").replace("\0", "").strip()[:LONGEST_SEARCH].rstrip()


def ordering(
    request: HttpRequest, columns: Mapping[str, Sequence[str]], *, default: str
) -> tuple[str, list[str]]:
    """Return the sort of the address ('name', or '-name' for downwards) and the fields to order by.

    `columns` names what may be sorted by, each with its fields; anything else in the address is `default`.
    Put a unique field last, so that pages do not overlap. The first field alone turns round.
    """
    sort = request.GET.get("sort", default)
    if sort.removeprefix("-") not in columns:
        sort = default
    fields = list(columns[sort.removeprefix("-")])
    if sort.startswith("-"):
        fields[0] = f"-{fields[0]}"
    return sort, fields


class KeyedPaginator(Paginator):
    """Sorts keys alone and fetches the rows of one page by key; for lists that grow long.

    Sorting whole rows with everything they join made the last of 10,000 rows cost twice as much. One query
    more than Django's own; a row that went between the two is left out.
    """

    def page(self, number: int | str) -> Page:
        """Return the page of that number, its rows fetched. Raises InvalidPage."""
        number, found = self.validate_number(number), cast(QuerySet[Any], self.object_list)
        first = (number - 1) * self.per_page
        keys = list(found.values_list("pk", flat=True)[first : first + self.per_page])
        rows = found.order_by().in_bulk(keys)
        return Page([rows[key] for key in keys if key in rows], number, self)
