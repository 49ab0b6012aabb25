"""What is encrypted at rest, and the turning of its keys."""

import pytest
from django.core.management import call_command
from django.db import connection

from portal.audit.models import AuditEntry
from portal.core import encryption
from portal.core.encryption import Sealed, Unreadable, rotate
from portal.hosts.keys import current_key, ensure_key

pytestmark = [pytest.mark.database, pytest.mark.django_db]


@pytest.fixture(autouse=True)
def key_file(settings, tmp_path):
    settings.ENCRYPTION_KEYS = tmp_path / "keys"
    return settings.ENCRYPTION_KEYS


def test_the_private_key_is_nowhere_in_the_clear(key_file):
    """Red when the column holds what `private_bytes` gave, or the key file is readable by others."""
    made = ensure_key("example")
    assert "PRIVATE KEY" in made.private.open()
    with connection.cursor() as cursor:
        cursor.execute("SELECT private FROM hosts_sshkey")
        (stored,) = cursor.fetchone()
    assert "PRIVATE" not in stored and made.private.open() not in stored
    assert made.private.open() not in repr(vars(made)) and str(made.private) == "(encrypted)"
    assert key_file.stat().st_mode & 0o777 == 0o600


def test_a_text_that_nobody_encrypted_is_not_stored():
    made = ensure_key("example")
    made.private = "in the clear"
    with pytest.raises(TypeError):
        made.save()


def test_rotation_reads_everything_and_forgets_the_old_key(key_file):
    """Red when rotate leaves the old keys in the file, or does not write rows anew."""
    made = ensure_key("example")
    text, old_keys, old_token = made.private.open(), key_file.read_text(), made.private.token
    call_command("rotate_encryption")
    made.refresh_from_db()
    assert made.private.open() == text and made.private.token != old_token
    assert len(key_file.read_text().split()) == 1 and key_file.read_text() != old_keys
    assert key_file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(Unreadable):
        Sealed(old_token).open()
    entry = AuditEntry.objects.get(verb="encryption.rotated")
    assert (entry.actor_name, entry.after) == ("rotate_encryption", {"encrypted": 1})


def test_an_interrupted_rotation_loses_nothing(key_file, monkeypatch):
    """Red when the old key is dropped before the rows are written."""
    text = ensure_key("example").private.open()

    def broken(_text):
        raise OSError("power cut")

    with monkeypatch.context() as patched:
        patched.setattr(encryption.Sealed, "of", broken)
        with pytest.raises(OSError):
            rotate()
    assert current_key().private.open() == text
    assert rotate() == 1 and current_key().private.open() == text


def test_there_is_one_key_however_often_it_is_asked_for():
    assert ensure_key("example").public == ensure_key("another").public
