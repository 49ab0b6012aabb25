"""Row-level permission for every model. Not for: deciding roles, which authentication backends do."""

from typing import Any, Self

from django.contrib.auth import get_backends
from django.db import models

#: A backend's condition that holds for every row; as itself, it costs no subquery over them.
EVERY_ROW = models.Q(pk__isnull=False)


class RestrictedQuerySet(models.QuerySet[Any]):
    """A queryset whose rows a user is allowed to see or act upon."""

    def restrict(self, user: Any, action: str) -> Self:
        """Keep only rows on which `user` may do `action`.

        Each authentication backend may offer `rows_for(user, action, model)` returning a `Q` or None;
        what any of them grants is granted. Someone inactive or signed out is granted nothing.
        """
        if not getattr(user, "is_active", False):
            return self.none()
        granted = [
            condition
            for backend in get_backends()
            if hasattr(backend, "rows_for")
            and (condition := backend.rows_for(user, action, self.model)) is not None
        ]
        if not granted:
            return self.none()
        if EVERY_ROW in granted:
            return self.all()
        allowed = models.Q()
        for condition in granted:
            allowed |= condition
        direct = self.filter(allowed)
        # Without a table more no row is doubled, and the database may begin with the condition's indexes.
        if direct.query.count_active_tables() <= max(self.query.count_active_tables(), 1):
            return direct
        # A subquery keeps joins of the condition from doubling rows.
        return self.filter(pk__in=self.model._default_manager.filter(allowed).values("pk"))
