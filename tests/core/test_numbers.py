"""Numbers that browsers send: none of them, however long, becomes an error of the portal's."""

from pathlib import Path

import pytest
from django import forms

from portal.accounts.models import User
from portal.core.numbers import number_of
from portal.core.web.forms import GibField, MibField, MibOfKibField, RowsField
from tests.factories import MIB

#: The first three are no numbers to int(), to a column of SQLite, and to one of PostgreSQL.
NONE = ["9" * 5000, "9" * 30, "9" * 19, "²", "٣", "-1", "+1", "1_0", " 1", "1.0", "0x1", "", "x", "\0", None]


@pytest.mark.parametrize("text", NONE, ids=range(len(NONE)))
def test_what_is_no_number_that_a_row_can_have_is_none(text):
    """Red when str.isdecimal() or int() alone is asked."""
    assert number_of(text) is None


def test_digits_are_a_number():
    assert (number_of("0"), number_of("07"), number_of("9" * 18)) == (0, 7, int("9" * 18))


@pytest.mark.database
@pytest.mark.django_db
@pytest.mark.parametrize("key", ["9" * 5000, "9" * 30, "²"], ids=["long", "large", "odd"])
def test_a_key_that_no_row_can_have_is_no_choice(key):
    """Red when RowsField.clean() leaves it to Django: databases refuse such a number with an error."""
    person = User.objects.create(username="person")
    field = RowsField(User.objects.all())
    assert list(field.clean([str(person.pk)])) == [person]
    with pytest.raises(forms.ValidationError, match="not one of the available choices|valid choice") as told:
        field.clean([str(person.pk), key])
    assert len(str(told.value)) < 120


@pytest.mark.parametrize(
    ("kind", "typed", "value"),
    [
        (GibField, "0.0001", MIB),
        (GibField, "1.5", 1536 * MIB),
        (GibField, "-0.0001", 0),
        (MibField, "0.0000001", 1),
        (MibField, "2.5", 5 * MIB // 2),
        (MibOfKibField, "0.0001", 1),
        (MibOfKibField, "2.5", 2560),
    ],
)
def test_a_broken_size_is_rounded_up(kind, typed, value):
    """Red when a Decimal is divided by `//`, which cuts: a limit that was typed would be none."""
    assert kind().clean(typed) == value


def test_every_form_has_that_field():
    """Red when a form chooses rows by Django's own field."""
    root = Path(__file__).parents[2]
    sources = (path for room in ("portal", "networks", "vms") for path in (root / room).rglob("*.py"))
    found = [path for path in sources if "ModelMultipleChoiceField" in path.read_text()]
    assert found == [root / "portal/core/web/forms.py"]
