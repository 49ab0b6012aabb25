"""Tags and filters of every page: icons, sizes, spans of time, instants, fields. Known without {% load %}."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import lru_cache

from django import template
from django.core.paginator import Page
from django.forms import BoundField, CheckboxInput, CheckboxSelectMultiple, RadioSelect, Select
from django.templatetags.static import static
from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import ngettext

register = template.Library()

MIB, GIB = 1 << 20, 1 << 30
NOTHING = "–"  # for a value that is not known


@register.filter
def gib(value: int | None, decimals: int = 1) -> str:
    """Return `value` bytes as GiB with at most `decimals` decimals ('1.5 GiB'); less than one as MiB."""
    if value is None:
        return NOTHING
    if 0 < value < GIB:
        return f"{number_format(round(value / MIB))} MiB"
    number = round(value / GIB, decimals)
    return f"{number_format(int(number) if number == int(number) else number)} GiB"


_UNITS = (
    (86_400, lambda n: ngettext("%d day", "%d days", n)),
    (3_600, lambda n: ngettext("%d h", "%d h", n)),
    (60, lambda n: ngettext("%d min", "%d min", n)),
    (1, lambda n: ngettext("%d s", "%d s", n)),
)


@register.filter
def duration(value: timedelta | float | None) -> str:
    """Return a span (timedelta or seconds) in its two greatest units ('3 days 4 h', '12 s')."""
    if value is None:
        return NOTHING
    left = int(value.total_seconds() if isinstance(value, timedelta) else value)
    sign, left = ("-" if left < 0 else ""), abs(left)
    parts: list[str] = []
    for length, words in _UNITS:
        count, left = divmod(left, length)
        if count:
            parts.append(words(count) % count)
        elif parts:
            break
    return sign + " ".join(parts[:2] or [_UNITS[-1][1](0) % 0])


# What stands on a page a hundred times is no template of its own: including one costs as much as a query.


@register.simple_tag
def moment(at: datetime | None, style: str = "") -> str:
    """Draw an instant in the reader's zone, exact on hover.

    `style`: '' date and time, 'date' the day alone, 'since' how long ago, 'until' how long from now.
    """
    if at is None:
        return NOTHING
    local = timezone.localtime(at)
    exact = f"{local:%Y-%m-%d %H:%M:%S} {local.tzname()}"
    if style == "since":
        text = duration(timezone.now() - at)
    elif style == "until":
        text = duration(at - timezone.now())
    else:
        text = date_format(local, "j M Y" if style == "date" else "j M Y H:i")
    machine_readable = local.isoformat(timespec="seconds")
    return format_html('<time datetime="{}" title="{}">{}</time>', machine_readable, exact, text)


@register.simple_tag
@lru_cache(maxsize=512)
def icon(name: str, extra: str = "") -> SafeString:
    """Draw the icon `name` of scripts/lib/icons.txt (add it there first), hidden from screen readers.

    The line's end sets it apart from a word right behind it.
    """
    return format_html(
        '<svg class="{}" aria-hidden="true" focusable="false"><use href="{}#{}" /></svg>\n',
        f"icon {extra}".strip(),
        static("vendor/icons.svg"),
        name,
    )


@register.filter
def kind(field: BoundField) -> str:
    """Tell how a field is drawn: 'check', 'choices' or 'line'."""
    widget = field.field.widget
    if isinstance(widget, RadioSelect | CheckboxSelectMultiple):
        return "choices"
    return "check" if isinstance(widget, CheckboxInput) else "line"


@register.filter
def control(field: BoundField) -> SafeString:
    """Draw the widget of `field` with the look of the house."""
    widget = field.field.widget
    look = "form-check-input" if kind(field) != "line" else "form-control"
    if kind(field) == "line" and isinstance(widget, Select):
        look = "form-select"
    classes = [str(widget.attrs.get("class", "")), look, "is-invalid" if field.errors else ""]
    return field.as_widget(attrs={"class": " ".join(filter(None, classes))})


#: Tone -> shape, so that a state is told apart without its colour.
SHAPES = {
    "good": "circle-check",
    "busy": "progress",
    "waiting": "clock",
    "warn": "triangle-filled",
    "bad": "square-filled",
    "off": "circle",
    "unknown": "help-circle",
}


@register.simple_tag
def state(word: str, tone: str) -> str:
    """Draw a state as word, shape and colour. Raises KeyError for a tone that SHAPES does not hold."""
    return format_html('<span class="state state-{}">{}{}</span>', tone, icon(SHAPES[tone]), word)


@register.filter
def page_numbers(page: Page) -> Iterable[int | str]:
    """Return the numbers of a long list of pages worth a link, with an ellipsis for what is left out."""
    return page.paginator.get_elided_page_range(page.number, on_each_side=2, on_ends=1)
