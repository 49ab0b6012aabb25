"""Who opened a socket, and whether they are still signed in. Not for: what they may see."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from django.contrib.auth import get_user_model


@dataclass(frozen=True)
class SignedIn:
    """A person and the session of the browser that opened a socket: a socket must not outlive either."""

    user_id: Any
    session: Any
    session_hash: str

    @classmethod
    def of(cls, scope: Mapping[str, Any]) -> Self | None:
        """Return who is signed in by the scope of a socket, None when nobody is."""
        user = scope.get("user")
        if user is None or not user.is_authenticated:
            return None
        return cls(user.pk, scope.get("session"), user.get_session_auth_hash())

    def holds(self) -> bool:
        """Tell whether the session was not ended elsewhere: by signing out, or for all of the person's.

        Two small queries.
        """
        if self.session is not None and not self.session.exists(self.session.session_key):
            return False
        user = get_user_model().objects.filter(pk=self.user_id, is_active=True).first()
        return user is not None and user.get_session_auth_hash() == self.session_hash
