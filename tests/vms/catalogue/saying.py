"""What a person types into the form that describes an image anew."""

from django.urls import reverse


def typed(client, image):
    """Return what the form would send as it is shown, by the names of its fields."""
    form = client.get(reverse("vms:image_describe", args=[image.pk])).context["form"]
    values = {field.html_name: field.value() for field in form}
    values["projects"] = [getattr(project, "pk", project) for project in values["projects"]]
    return {name: value for name, value in values.items() if value not in (None, False, "")}


def describe(client, image, **changes):
    """Send the form as it is shown but for `changes`, of which None leaves one out; return the answer."""
    told = {name: value for name, value in (typed(client, image) | changes).items() if value is not None}
    return client.post(reverse("vms:image_describe", args=[image.pk]), told)
