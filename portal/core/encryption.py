"""Text that is encrypted at rest. Not for: passwords, which are hashed.

The keys lie in a file of the state folder that only the processes with access to hypervisors need to read
(mode 600), the newest first: the first encrypts, all decrypt. A backup without that file cannot be read.
"""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.apps import apps
from django.conf import settings
from django.db import models, transaction

from portal.settings.paths import made_once


class Unreadable(Exception):
    """The key file does not hold the key that this was encrypted with."""


def _new_key() -> str:
    return Fernet.generate_key().decode()


def _keys() -> list[str]:
    """Return the keys, newest first; the first call makes one."""
    return made_once(settings.ENCRYPTION_KEYS, _new_key).split()


def _fernet() -> MultiFernet:
    return MultiFernet([Fernet(key) for key in _keys()])


def _write_keys(keys: list[str]) -> None:
    staged = settings.ENCRYPTION_KEYS.with_suffix(".new")
    with os.fdopen(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as handle:
        handle.write("\n".join(keys))
        handle.flush()
        os.fsync(handle.fileno())
    staged.replace(settings.ENCRYPTION_KEYS)


@dataclass(frozen=True, slots=True)
class Sealed:
    """An encrypted text, decrypted only when somebody opens it: a page that lists rows needs no key."""

    token: str

    @classmethod
    def of(cls, text: str) -> Self:
        """Encrypt `text`."""
        return cls(_fernet().encrypt(text.encode()).decode())

    def open(self) -> str:
        """Return the text. Raises Unreadable."""
        try:
            return _fernet().decrypt(self.token.encode()).decode()
        except InvalidToken as error:
            raise Unreadable(f"{settings.ENCRYPTION_KEYS} does not hold the key for this") from error

    def __str__(self) -> str:
        return "(encrypted)"


if TYPE_CHECKING:
    _Field = models.Field[Sealed, Sealed]
else:
    _Field = models.Field


class SealedField(_Field):
    """A column of `Sealed` texts."""

    def get_internal_type(self) -> str:
        """Return the kind of column."""
        return "TextField"

    def from_db_value(self, value: str | None, *_: Any) -> Sealed | None:
        """Wrap what the database holds."""
        return None if value is None else Sealed(value)

    def get_prep_value(self, value: Any) -> str | None:
        """Return what the database holds. Raises TypeError for a text that nobody encrypted."""
        if value is not None and not isinstance(value, Sealed):
            raise TypeError("encrypt it first: Sealed.of(text)")
        return None if value is None else value.token


def rotate() -> int:
    """Encrypt everything with a new key and forget the old ones; return how many texts. Safe to run again.

    An interrupted run leaves old keys in the file, and everything readable.
    """
    keys = _keys()
    _write_keys([_new_key(), *keys])
    changed = 0
    with transaction.atomic():
        for model in apps.get_models():
            names = [field.attname for field in model._meta.concrete_fields if isinstance(field, SealedField)]
            for row in model._default_manager.select_for_update() if names else ():
                sealed = {name: Sealed.of(getattr(row, name).open()) for name in names if getattr(row, name)}
                model._default_manager.filter(pk=row.pk).update(**sealed)
                changed += len(sealed)
    _write_keys(_keys()[:1])
    return changed
