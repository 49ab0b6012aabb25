"""What requests for machines would mean now. Not for: making them, nor choosing a place for good."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from networks.models import Network
from portal.accounts.models import Project
from portal.core.errors import Denied
from portal.core.templatetags.gatehouse import gib
from portal.hosts.models import Host, Image, ImageAttachment
from portal.operations import counters, ledger, scopes
from portal.operations.counters import Key
from portal.operations.models import Operation, Reservation
from portal.operations.policies.judging import Forecast, forecast
from portal.operations.registry import Asking, Outlook, QuotaLeft
from portal.operations.spec import RequestSpec
from vms import fitting, guidance, placement, profiles, virtualization
from vms.models import CatalogueItem, VirtualMachine
from vms.services import DAY, DEPLOY, cost_new, kind_for, name_is_taken, names_of, quota_amounts, share_of
from vms.specs import further_disks
from vms.virtualization import Devices, Wanted


@dataclass(frozen=True)
class Prospect:
    """What a look at a request needs of it, whether it was made already or not."""

    project: Project
    requester: Any
    sizes: Mapping[str, int]
    image_sha256: str
    cost_month: str
    name: str = ""
    network_uuid: str = ""
    wanted: str = Wanted.BEST
    devices: str = Devices.PARAVIRTUAL
    #: The key of the request, when it was made: what it holds counts as left for it.
    operation: int | None = None
    #: The board, and the SHA-256 of a CD of drivers (`vms.profiles`).
    profile: str = profiles.Profile.STANDARD
    drivers: str = ""
    #: The other names of several machines, whose sizes are sums.
    names: Sequence[str] = ()

    @property
    def called(self) -> Sequence[str]:
        """What the machines would be called, as far as that is known."""
        return self.names or ([self.name] if self.name else [])


def prospect_of(operation: Operation) -> Prospect:
    """Return a waiting request as what a look needs. Raises ValueError for one of no project."""
    spec = operation.frozen
    if operation.project is None:
        raise ValueError(f"{operation} asks for a machine of no project")
    wanted, devices = virtualization.pinned(spec)
    return Prospect(
        project=operation.project,
        requester=operation.requester,
        sizes=spec["sizes"],
        image_sha256=spec["pinned"]["image"]["sha256"],
        cost_month=spec["pinned"]["cost_month"],
        name=spec["pinned"]["name"],
        network_uuid=spec["pinned"]["network"]["uuid"],
        wanted=wanted,
        devices=devices,
        profile=profiles.pinned(spec),
        drivers=profiles.drivers_pinned(spec),
        operation=operation.pk,
        names=spec["pinned"].get("names", ()),
    )


def foresee(prospects: Sequence[Prospect]) -> list[Outlook]:
    """Return what each would mean if it were asked or approved now. Changes nothing.

    A constant number of queries, however many there are.
    """
    quotas = [quota_amounts(item.requester, item.project, item.sizes) for item in prospects]
    left = Left(key for amounts in quotas for key in amounts)
    own = held_by([item.operation for item in prospects if item.operation])
    places = _Places(prospects)
    names = {name for item in prospects for name in item.called}
    taken = set(VirtualMachine.objects.filter(name__in=names).values_list("name", flat=True)) if names else ()
    networks = {item.network_uuid for item in prospects if item.network_uuid}
    found_networks = Network.objects.filter(uuid__in=networks).values_list("uuid", "kind")
    there = {str(uuid): kind for uuid, kind in found_networks}
    found = []
    for item, amounts in zip(prospects, quotas, strict=True):
        own_network = there.get(item.network_uuid) == Network.Kind.USER
        hosts, obstacle = places.choose(item, own_network=own_network)
        runs_by = virtualization.resolve(item.wanted, hosts[0].accelerator) if hosts else item.wanted
        warnings = [obstacle] if obstacle else []
        warnings += guidance.too_small(places.system_in(item.image_sha256), share_of(item.sizes))
        warnings += [
            _("A machine called %(name)s exists meanwhile.") % {"name": name}
            for name in item.called
            if name in taken
        ]
        if item.network_uuid and item.network_uuid not in there:
            warnings.append(_("Its network was removed."))
        bars, shortages = left.after(amounts, own.get(item.operation or 0, {}))
        found.append(
            Outlook(
                place=_where(hosts),
                facts=[(_("Would run by"), virtualization.words(runs_by, item.devices))],
                cost_month=item.cost_month,
                quotas=bars,
                warnings=warnings,
                shortages=shortages,
            )
        )
    return found


def _where(hosts: Sequence[Host]) -> str:
    """Return the names of hosts, each with how many of several machines it would take."""
    tally = Counter(host.name for host in hosts)
    if len(hosts) < 2:
        return "".join(tally)
    return ", ".join(f"{name} ({count})" for name, count in tally.items())


class Left:
    """What counters have left; at most four queries."""

    def __init__(self, keys: Iterable[Key]) -> None:
        wanted = sorted(set(keys))
        found = counters.look(wanted) if wanted else []
        self.counters = {(row.scope, row.resource): row for row in found}
        self.titles = scopes.titles({scope for scope, _resource in wanted})

    def after(
        self, amounts: ledger.Amounts, own: Mapping[Key, int]
    ) -> tuple[list[QuotaLeft], dict[str, str]]:
        """Return what is left after `amounts`, of which `own` are held already, and what is short."""
        bars: list[QuotaLeft] = []
        shortages: dict[str, str] = {}
        for key, counter in self.counters.items():
            if key not in amounts or counter.limit is None:
                continue
            held = own.get(key, 0)
            taken = counter.taken - held + amounts[key]
            if taken > counter.limit and amounts[key] > held:
                shortages.setdefault(counter.resource, ledger.shortage(counter, amounts[key], held))
            bars.append(
                QuotaLeft(
                    title=self.titles.get(counter.scope) or counter.title,
                    resource=counter.get_resource_display(),
                    left=ledger.amount_text(counter.resource, max(0, counter.limit - taken)),
                    limit=ledger.amount_text(counter.resource, counter.limit),
                    percent=round(100 * taken / counter.limit) if counter.limit else 101,
                )
            )
        return bars, shortages

    def short_of(self, amounts: ledger.Amounts) -> str:
        """Return the sentence for the first counter that `amounts` do not fit into, '' when all do."""
        for key, amount in amounts.items():
            counter = self.counters.get(key)
            if counter is not None and counter.left is not None and counter.left < amount:
                return ledger.shortage(counter, amount)
        return ""


class _Places:
    """Where machines could be built now; two queries, or three. Chooses as `placement.place` would."""

    def __init__(self, prospects: Sequence[Prospect]) -> None:
        self.by_image: dict[str, list[ImageAttachment]] = {}
        for attachment in placement.places_of(*{item.image_sha256 for item in prospects}):
            self.by_image.setdefault(attachment.image.sha256, []).append(attachment)
        self.drivers = profiles.hosts_with({item.drivers for item in prospects} - {""})
        everywhere = (place for places in self.by_image.values() for place in places)
        sizes = {"vcpu": 1, "memory": 1, "disk": 1}
        self.left = Left(key for place in everywhere for key in placement.amounts(place, sizes))

    def system_in(self, image_sha256: str) -> str:
        """Return what osinfo-db calls the system in the image, '' where nobody said or it lies nowhere."""
        there = self.by_image.get(image_sha256)
        return there[0].image.os if there else ""

    def choose(self, item: Prospect, *, own_network: bool) -> tuple[list[Host], str]:
        """Return the host of each machine, or none at all and why one finds no room."""
        obstacle = _(
            "No host that is up and not in maintenance has its image and was proven to run it so, "
            "with its board, and to give its network."
        )
        proofs = placement.proofs_for(item.wanted)
        able = [
            place
            for place in self.by_image.get(item.image_sha256, ())
            if place.pool.host.accelerator in proofs and (own_network or place.pool.host.bridges)
            if not profiles.lacks(place.pool.host, item.profile, item.wanted)
            and (not item.drivers or (item.drivers, place.pool.host_id) in self.drivers)
        ]
        share, taken, hosts = share_of(item.sizes), dict[Key, int](), []
        for _number in range(item.sizes.get("machines", 1)):
            wants = [_with(placement.amounts(place, share), taken) for place in able]
            short = [self.left.short_of(amounts) for amounts in wants]
            chosen = next((place for place, why in zip(able, short, strict=True) if not why), None)
            if chosen is None:
                return [], _no_room(short) or obstacle
            hosts.append(chosen.pool.host)
            taken |= _with(placement.amounts(chosen, share), taken)
        return hosts, ""


def _no_room(shortages: Sequence[str]) -> str:
    """Return why no host has room, '' where no host could take it at all."""
    if len(shortages) < 2:
        return "".join(shortages)
    return _("No host has room for it now.")


def _with(amounts: ledger.Amounts, taken: Mapping[Key, int]) -> dict[Key, int]:
    """Return `amounts` on top of what others of the same request would take of the same counters."""
    return {key: amount + taken.get(key, 0) for key, amount in amounts.items()}


def held_by(operations: Sequence[int]) -> dict[int, dict[Key, int]]:
    """Return what each operation holds, by scope and resource."""
    found: dict[int, dict[Key, int]] = {}
    if operations:
        held = Reservation.objects.filter(operation__in=operations, stage=Reservation.Stage.HELD)
        for row in held.values_list("operation", "counter__scope", "counter__resource", "amount"):
            found.setdefault(row[0], {})[row[1], row[2]] = row[3]
    return found


@dataclass(frozen=True)
class Sight:
    """What stands beside the form: the sizes as they would be, the outlook, and what is still missing."""

    sizes: Mapping[str, int]
    outlook: Outlook
    #: The labels of what must be filled in before it can be sent.
    missing: Sequence[str]
    until: datetime | None
    #: Whom the policies would ask; None while a size is none.
    forecast: Forecast | None


def look(actor: Any, form: Any, edited: Operation | None) -> Sight | None:
    """Return what the half-filled request `form` would mean, and say at its fields what is refused already.

    What is merely empty is refused only once the form was sent. None while project or size are not chosen.
    """
    form.is_valid()
    missing = _missing(form)
    values = form.cleaned_data
    count = values.get("count") or 1
    name = values.get("name")
    names = names_of(name, count) if name and count > 1 else [name] if name else []
    if taken := next((one for one in names if name_is_taken(one, besides=edited)), None):
        form.add_error("name", _("The name %(name)s is taken; choose another.") % {"name": taken})
    project, flavour = values.get("project"), values.get("flavour")
    if project is None or flavour is None:
        return None
    disk, days = values.get("disk"), values.get("lease_days")
    sizes = {
        "vcpu": flavour.vcpus,
        "memory": flavour.memory_counted,
        "disk": (flavour.disk if disk is None else disk) + form.item.image.further_size,
    }
    if count > 1:
        sizes = {name: size * count for name, size in sizes.items()} | {"machines": count}
    network, item = values.get("network"), form.item
    drivers = profiles.drivers_for(item, values.get("devices") or "")
    prospect = Prospect(
        project=project,
        requester=edited.requester if edited else actor,
        sizes=sizes,
        image_sha256=item.image.sha256,
        cost_month=str(cost_new(item, flavour, disk) * count),
        network_uuid=str(network.uuid) if network else "",
        wanted=values.get("accelerator") or item.default_accelerator,
        devices=values.get("devices") or item.default_devices,
        profile=values.get("profile") or profiles.profiles_of(item.image)[0],
        drivers=drivers.sha256 if drivers else "",
        operation=edited.pk if edited else None,
    )
    [outlook] = foresee([prospect])
    for resource, sentence in outlook.shortages.items():
        field = form.FIELDS.get(resource, resource)
        form.add_error(field if field in form.fields else None, sentence)
    until = timezone.now() + timedelta(days=days) if days and days > 0 and not form.errors else None
    asked = _forecast(prospect, item, days, edited)
    if asked is not None and asked.refusal:
        form.add_error(None, asked.refusal)
    return Sight(sizes, outlook, missing, until, asked)


def _forecast(
    prospect: Prospect, item: CatalogueItem, days: int | None, edited: Operation | None
) -> Forecast | None:
    """Return what the policies would say; they look at sizes, cost and item alone."""
    sizes = {**prospect.sizes, "lease": (days or 0) * DAY}
    if min(sizes.values()) < 1:
        return None
    kind = DEPLOY if prospect.sizes.get("machines", 1) > 1 else kind_for(item)
    spec = RequestSpec(kind, sizes, {"item": item.name, "cost_month": prospect.cost_month})
    return forecast(actor=prospect.requester, project=prospect.project, spec=spec, besides=edited)


def _missing(form: Any) -> list[str]:
    """Return the labels of what is required and empty, which is no error before the form was sent."""
    missing = []
    for name, errors in list(form.errors.items()):
        if name in form.fields and all(error.code == "required" for error in errors.as_data()):
            missing.append(str(form.fields[name].label))
            if not form.was_tried:
                del form.errors[name]
    return missing


class AskingForMachines(Asking):
    """Requests for new machines."""

    def amounts(self, operation: Operation, sizes: Mapping[str, int]) -> ledger.Amounts:
        if operation.project is None:
            raise ValueError(f"{operation} asks for a machine of no project")
        return quota_amounts(operation.requester, operation.project, sizes)

    def check_lowered(self, spec: Mapping[str, Any]) -> None:
        image = Image.objects.filter(sha256=spec["pinned"]["image"]["sha256"]).first()
        if image is None:
            raise Denied(_("The image of this request was removed."))
        disk = image.least_disk + sum(further_disks(spec))
        for field, least in {"memory": image.min_memory, "disk": disk}.items():
            if spec["sizes"][field] < least:
                raise Denied(
                    _("%(image)s needs at least %(least)s.") % {"image": image.title, "least": gib(least, 3)},
                    field=field,
                )

    def outlooks(self, operations: Sequence[Operation]) -> Mapping[int, Outlook]:
        found = foresee([prospect_of(operation) for operation in operations])
        pinned = [operation.frozen["pinned"]["image"]["sha256"] for operation in operations]
        images = Image.objects.filter(sha256__in=pinned).prefetch_related("projects")
        by_sha256 = {image.sha256: image for image in images}
        outlooks = {}
        for operation, sha256, outlook in zip(operations, pinned, found, strict=True):
            spec = operation.frozen
            each = {**spec, "sizes": share_of(spec["sizes"])}
            image = by_sha256.get(sha256)
            reason = fitting.refusal(each, image, operation.project) if image else ""
            warnings = [reason, *outlook.warnings] if reason else outlook.warnings
            outlooks[operation.pk] = replace(outlook, warnings=warnings)
        return outlooks

    def edit_url(self, operation: Operation) -> str:
        return reverse("vms:edit", args=[operation.pk])

    def copy_url(self, operation: Operation) -> str:
        return reverse("vms:copy", args=[operation.pk])
