"""What allauth asks of the portal: nobody signs up by themselves, a new password is in the trail, and no
mail and no counter goes by the name that a browser called the portal by.
"""

from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from allauth.account.adapter import DefaultAccountAdapter
from django.db import transaction
from django.http import HttpRequest

from portal.audit import services as audit
from portal.core.web.links import public_link


class AccountAdapter(DefaultAccountAdapter):
    """People come by invitation (portal.accounts.services.accept_invitation), never by a sign-up form."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        """Return False, always."""
        return False

    def get_reset_password_from_key_url(self, key: str) -> str:
        """Return the link that a mail for a new password holds."""
        return public_link(urlsplit(super().get_reset_password_from_key_url(key)).path)

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """Send a mail that names the portal and its address; allauth's own would say the request's Host."""
        site = SimpleNamespace(name="Gatehouse", domain=public_link("/"))
        super().send_mail(template_prefix, email, {"current_site": site} | context)

    def _get_login_attempts_cache_key(self, request: HttpRequest, **credentials: Any) -> str:
        """Return what wrong passwords are counted by; allauth would count anew for each Host."""
        login = credentials.get("email", credentials.get("username", ""))
        return f"portal:{login.lower()}"

    def set_password(self, user: Any, password: str) -> None:
        """Give `user` a new password and record who did it and by which page, in one transaction.

        allauth calls this for a change, for a first password and for a reset by mail. Neither the
        password nor its hash is recorded. Not idempotent.
        """
        signed_in = self.request.user.is_authenticated
        match = self.request.resolver_match
        by_mail = match is not None and match.url_name == "account_reset_password_from_key"
        way = "reset by mail" if by_mail else "changed" if user.has_usable_password() else "set"
        with transaction.atomic():
            super().set_password(user, password)
            # Who follows a link from a mail is its reader, unless somebody else is signed in.
            actor = self.request.user if signed_in else user
            audit.record(actor=actor, verb="person.password", target=user, after={"way": way})
