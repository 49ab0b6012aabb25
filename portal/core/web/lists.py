"""Lists that the server sorts by a column named in the address."""

from collections.abc import Mapping, Sequence

from django.http import HttpRequest


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
