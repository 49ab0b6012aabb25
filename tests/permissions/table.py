"""What each address answers to whom: one line an address, and a test fails for one that has no line.

A line says for GET and for POST who gets what. `page(SEES)` is 200 for those and 404 for everybody else, as
if nothing were there; `change(MAY, told=SEES)` lets MAY change something, which then stands in the audit
trail, tells SEES a reason and changes nothing, and is 404 for the rest. Who is signed out is asked to sign
in, but for `public(...)`. `row` names a row of `world.py` whose key stands in the address.

A new page: give it a line; a new thing: give it a row in `world.make_world`.
"""

import uuid
from typing import Any

from django.core import signing

from networks.models import Port
from portal.hosts.images import describing
from portal.hosts.storage.taking_over import seen_as
from tests.permissions.answers import (
    ADMINS,
    ALL,
    APPROVE,
    APPROVERS,
    ASK,
    CHANGED,
    DEPUTY,
    ESTATE,
    EVERY_ADMIN,
    NO,
    OWNER,
    REFUSED,
    REQUEST,
    SEE,
    TRAIL,
    USE,
    Line,
    answers,
    change,
    page,
    public,
)
from tests.permissions.world import ANONYMOUS, BATCH, MAC
from vms import naming, noted, pending, settings
from vms.catalogue.forms import SALT
from vms.catalogue.image_forms import DescribeForm
from vms.catalogue.values import item_snapshot, size_snapshot
from vms.changes import disks
from vms.changes.devices import buses, cardmodels, media, nics
from vms.changes.devices.forms import BandwidthForm, LimitsForm, ShownForm
from vms.changes.forms import DiskForm, ResizeForm
from vms.changes.resizing import sizes_of
from vms.install_templates import snapshot
from vms.install_views import SALT as TEMPLATE_SALT
from vms.naming_page import NameForm
from vms.settings_form import BackForm, SettingsForm

ANOTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO3pRSmoEbnApkTfXeqmr+G9jgvKZmVNfC69Nf1c60Rk one@example"


def _discarding(world: Any) -> dict[str, Any]:
    return {"confirm_name": world.saved.name}


def _wish(world: Any) -> dict[str, Any]:
    return {
        "token": uuid.uuid4(),
        "project": world.project.pk,
        "name": "another",
        "flavour": world.catalogue.flavour.pk,
        "network": world.network.pk,
        "lease_days": 7,
        "why": "to try it",
        "user": "root",
    }


def _approval(world: Any) -> dict[str, Any]:
    return {"decision": "approve", "spec_hash": world.request.spec_hash}


def _new_person(world: Any) -> dict[str, Any]:
    return {"username": "fresh", "email": "fresh@example.org", "password": "a long enough phrase"}


def _colleague(world: Any) -> dict[str, Any]:
    return {"person": "nobody", "role": "auditor"}


def _policy(world: Any) -> dict[str, Any]:
    return {"name": "fresh", "effect": "levels", "who_1": "admins", "needed_1": 1, "then": "save"}


def _deputy(world: Any) -> dict[str, Any]:
    return {"deputy": "nobody", "first": "2040-01-01", "last": "2040-01-02"}


def _settings(world: Any) -> dict[str, Any]:
    seen = {"digest": world.definition.observed_digest, "values": {}}
    now = settings.values(world.definition.observed_persistent)
    return {**now, "boot": "network", "seen": signing.dumps(seen, salt=SettingsForm.salt)}


def _back(world: Any) -> dict[str, Any]:
    form = BackForm()
    found = noted.of(world.waiting)
    form.look_at(found, pending.look(world.waiting, found))
    return {"seen": form.initial["seen"]}


def _drives(world: Any) -> dict[str, Any]:
    return {"seen": ShownForm(now=media.shown(media.drives_of(world.machine))).initial["seen"]}


def _name(world: Any) -> dict[str, Any]:
    seen = naming.named(world.machine)
    return {"name": seen["name"], "labels": "tried", "seen": signing.dumps(seen, salt=NameForm.salt)}


def _described(world: Any) -> dict[str, Any]:
    image = world.unused_image
    told = {"title": image.title, "version": "2", "min_memory": "0.25", "login_user": image.login_user}
    seen = signing.dumps(describing.snapshot(image), salt=DescribeForm.salt)
    return {"device_models": image.device_models, "every_project": "1", "seen": seen, **told}


def _change(world: Any, salt: str, seen: dict[str, int]) -> dict[str, Any]:
    return {"token": uuid.uuid4(), "why": "a try", "seen": signing.dumps(seen, salt=salt)}


def _resize(world: Any) -> dict[str, Any]:
    now = sizes_of(world.machine)
    return {**_change(world, ResizeForm.salt, now), "vcpu": now["vcpu"] + 1, "memory": "2"}


def _clone(world: Any) -> dict[str, Any]:
    return {"token": uuid.uuid4(), "name": "cloned", "lease": "3", "why": "a try"}


def _template(world: Any) -> dict[str, Any]:
    return {"title": "Tools", "whole": "1"}


def _many(world: Any) -> dict[str, Any]:
    return {"machine": [world.machine.pk], "verb": "start", "sure": "1", "token": uuid.uuid4()}


def _disk(world: Any) -> dict[str, Any]:
    return {**_change(world, DiskForm.salt, {}), "disk": "1"}


def _growth(world: Any) -> dict[str, Any]:
    now = world.machine.disks.get(target="vda").capacity
    return {**_change(world, DiskForm.salt, {"disk": now}), "disk": "5"}


def _longer(world: Any) -> dict[str, Any]:
    return {"token": uuid.uuid4(), "days": 9, "why": "not done yet"}


def _limits(world: Any) -> dict[str, Any]:
    return {"seen": signing.dumps({}, salt=LimitsForm.salt), "total_iops_sec": "100"}


def _bandwidth(world: Any) -> dict[str, Any]:
    return {"seen": signing.dumps({}, salt=BandwidthForm.salt), "inbound_average": "1"}


def _bus(world: Any) -> dict[str, Any]:
    disk = world.machine.disks.get(target="vdb")
    now = buses.shown(disk, noted.of(world.machine))
    return {"bus": "sata", "seen": ShownForm(now=now).initial["seen"]}


def _cards(world: Any) -> dict[str, Any]:
    return {"seen": ShownForm(now=nics.shown_all(nics.cards_of(world.machine))).initial["seen"]}


def _disk_as_seen(world: Any, target: str = "vdb") -> dict[str, Any]:
    return {"seen": ShownForm(now=disks.shown(world.machine.disks.get(target=target))).initial["seen"]}


def _card(world: Any) -> dict[str, Any]:
    port, found = Port.objects.get(mac=MAC), noted.of(world.machine)
    last = nics.shown_last(nics.cards_of(world.machine))
    now = {**nics.shown(port, found), **cardmodels.shown(port, found), **last}
    return {"up": "0", "model": "e1000e", "seen": ShownForm(now=now).initial["seen"]}


def _adoption(world: Any) -> dict[str, Any]:
    return {"name": "fresh", "project": world.project.pk, "owner": "owner", "lease_days": 7}


def _new_host(world: Any) -> dict[str, Any]:
    return {"name": "fresh", "uri": "qemu+ssh://root@198.51.100.7/system", "pool_path": "/var/lib/fresh"}


def _new_network(world: Any) -> dict[str, Any]:
    return {"name": "fresh", "title": "Fresh", "kind": "nat", "subnet": "10.213.99.0/24"}


def _size(world: Any) -> dict[str, Any]:
    return {"name": "fresh", "vcpus": 1, "memory": "1", "disk": "5", "cost_month": "2"}


def _answers(world: Any) -> dict[str, Any]:
    return {"name": "Fresh", "format": "preseed", "text": "d-i netcfg/get_hostname string $hostname"}


def _item(world: Any) -> dict[str, Any]:
    return {
        "name": "Fresh",
        "description": "To try it.",
        "icon": "server",
        "image": world.image.pk,
        "flavours": [world.catalogue.flavour.pk],
        "networks": [world.network.pk],
        "linked_clone": "1",
        "device_models": ["paravirtual"],
        "default_devices": "paravirtual",
        "accelerators": ["best"],
        "default_accelerator": "best",
        "lease_days": 7,
        "longest_lease_days": 30,
        "cost_month": "0",
        "cost_month_gib": "0",
        "every_project": "1",
    }


def _new_image(world: Any) -> dict[str, Any]:
    return {
        "kind": "iso",
        "title": "Fresh",
        "name": "fresh",
        "version": "1",
        "min_memory": "1",
        "device_models": ["paravirtual"],
        "every_project": "1",
    }


LINES = (
    Line("first_page", page(ALL, 302), NO),
    # Sign-in (allauth's pages)
    Line("account_login", public(200, 302), public(200, 302)),
    Line("account_logout", public(302, 200), public(302), silent="signing out is no change"),
    Line("account_inactive", public(200), public(405)),
    Line("account_signup", public(200, 302), public(200, 302)),
    Line("account_reauthenticate", page(ALL), page(ALL)),
    Line("account_change_password", page(ALL), page(ALL)),
    Line("account_set_password", page(ALL, 302), page(ALL, 302)),
    Line("account_reset_password", public(200), public(200)),
    Line("account_reset_password_done", public(200), public(405)),
    Line(
        "account_reset_password_from_key",
        public(200),
        public(200),
        kwargs={"uidb36": "1", "key": "set-password"},
    ),
    Line("account_reset_password_from_key_done", public(200), public(405)),
    # Health
    Line("health_live", public(200), public(405)),
    Line("health_ready", public(200), public(405)),
    # One's own
    Line("accounts:profile", page(ALL), change(ALL), data=lambda w: {"first_name": "F", "theme": "dark"}),
    Line(
        "accounts:ssh_keys",
        page(ALL),
        change(ALL),
        data=lambda w: {"name": "", "line": ANOTHER_KEY},
    ),
    Line("accounts:ssh_key_remove", NO, change(frozenset({"owner"})), "ssh_key"),
    Line(
        "accounts:theme",
        NO,
        change(ALL, status=204),
        data=lambda w: {"theme": "dark"},
        silent="a matter of taste",
    ),
    Line("accounts:notices", page(ALL), NO),
    Line("accounts:notice_mails", page(ALL), change(ALL), silent="a matter of taste"),
    Line(
        "accounts:notices_read",
        NO,
        change(ALL),
        data=lambda w: {"up_to": w.notice.pk},
        silent="what one has read",
    ),
    Line(
        "accounts:notice_open",
        NO,
        change(frozenset({"owner"})),
        "notice",
        silent="what one has read",
    ),
    # An open link, followed by whoever is signed in already: they have an account.
    Line(
        "accounts:accept",
        public(200, signed_in=410),
        public(200, signed_in=410) | {ANONYMOUS: (302, CHANGED)},
        data=_new_person,
    ),
    # People and projects
    Line("accounts:people", page(EVERY_ADMIN), NO),
    Line(
        "accounts:invite",
        page(EVERY_ADMIN),
        change(EVERY_ADMIN, status=200),
        data=lambda w: {"project": w.project.pk, "role": "auditor", "days": 3},
    ),
    Line("accounts:person", page(EVERY_ADMIN), NO, "person"),
    Line("accounts:person_active", NO, change(EVERY_ADMIN), "person", data=lambda w: {"active": "0"}),
    Line(
        "accounts:person_grant",
        NO,
        change(EVERY_ADMIN),
        "person",
        data=lambda w: {"project": w.project.pk, "role": "auditor"},
    ),
    Line("accounts:role_revoke", NO, change(ADMINS), "role"),
    Line("accounts:invitation_revoke", NO, change(ADMINS), "invitation"),
    Line(
        "accounts:projects",
        page(ALL),
        change(EVERY_ADMIN, told=ALL, refusal=422),
        data=lambda w: {"name": "fresh"},
    ),
    Line("accounts:project", page(ADMINS), NO, "project"),
    Line("accounts:project_rename", NO, change(ADMINS), "project", data=lambda w: {"rename-name": "fresh"}),
    Line("accounts:project_grant", NO, change(ADMINS), "project", data=_colleague),
    Line(
        "accounts:project_invite",
        NO,
        change(ADMINS, status=200),
        "project",
        data=lambda w: {"invite-role": "auditor", "invite-days": 3},
    ),
    # Quotas
    Line("quotas:overview", page(EVERY_ADMIN), NO),
    Line("quotas:own", page(ALL), NO),
    Line(
        "quotas:default",
        page(EVERY_ADMIN),
        change(EVERY_ADMIN),
        kwargs={"name": "project"},
        data=lambda w: {"machines": 5},
    ),
    Line("quotas:person", page(EVERY_ADMIN), change(EVERY_ADMIN), "person", data=lambda w: {"vcpu": 5}),
    Line(
        "quotas:project",
        page(ADMINS),
        change(EVERY_ADMIN, told=ADMINS, refusal=422),
        "project",
        data=lambda w: {"memory": "2.5"},
    ),
    Line("quotas:each", page(ADMINS), change(ADMINS), "project", data=lambda w: {"disk": 5}),
    Line(
        "quotas:member",
        page(ADMINS),
        change(ADMINS),
        "project",
        kwargs={"name": "owner"},
        data=lambda w: {"machines": 5},
    ),
    # The trail
    Line("audit:trail", page(TRAIL), NO),
    Line("audit:verify", NO, change(TRAIL)),
    Line("audit:download_csv", NO, change(TRAIL, status=200)),
    Line("audit:download_json", NO, change(TRAIL, status=200)),
    Line("audit:download_pdf", NO, change(TRAIL, status=200)),
    # The catalogue
    Line("vms:catalogue_admin", page(EVERY_ADMIN), NO),
    Line("vms:item_add", page(EVERY_ADMIN), change(EVERY_ADMIN), data=_item),
    Line(
        "vms:item_edit",
        page(EVERY_ADMIN),
        change(EVERY_ADMIN),
        "item",
        data=lambda w: _item(w) | {"seen": signing.dumps(item_snapshot(w.item), salt=SALT)},
    ),
    Line("vms:item_offer", NO, change(EVERY_ADMIN), "item", data=lambda w: {"offered": "0"}),
    Line("vms:item_move", NO, change(EVERY_ADMIN), "item", data=lambda w: {"to": "down"}),
    Line("vms:item_delete", NO, change(EVERY_ADMIN), "unused", data=lambda w: {"confirm_name": "Unused"}),
    Line("vms:sizes", page(EVERY_ADMIN), change(EVERY_ADMIN), data=_size),
    Line(
        "vms:size_edit",
        page(EVERY_ADMIN),
        change(EVERY_ADMIN),
        "size",
        data=lambda w: _size(w) | {"seen": signing.dumps(size_snapshot(w.size), salt=SALT)},
    ),
    Line("vms:size_delete", NO, change(EVERY_ADMIN), "size"),
    Line("vms:templates", page(ESTATE), NO),
    Line("vms:template_add", page(ESTATE), change(ESTATE), data=_answers),
    Line(
        "vms:template_edit",
        page(ESTATE),
        change(ESTATE),
        "template",
        data=lambda w: _answers(w) | {"seen": signing.dumps(snapshot(w.template), salt=TEMPLATE_SALT)},
    ),
    Line("vms:template_delete", NO, change(ESTATE), "template"),
    Line("vms:images", page(EVERY_ADMIN), NO),
    Line("vms:image", page(EVERY_ADMIN), NO, "image"),
    Line("vms:image_add", page(EVERY_ADMIN), change(EVERY_ADMIN), data=_new_image),
    Line(
        "vms:image_fetch",
        page(EVERY_ADMIN),
        change(EVERY_ADMIN),
        data=lambda w: {**_new_image(w), "address": "https://example.org/a.iso", "sha256": "0" * 64},
    ),
    Line(
        "vms:image_describe",
        page(EVERY_ADMIN),
        change(EVERY_ADMIN),
        "unused_image",
        data=_described,
    ),
    Line("vms:image_use", NO, change(EVERY_ADMIN), "newer_image", data=lambda w: {"item": [w.item.pk]}),
    Line(
        "vms:image_delete", NO, change(EVERY_ADMIN), "unused_image", data=lambda w: {"confirm_name": "unused"}
    ),
    Line("vms:import_networks", page(EVERY_ADMIN), NO),
    Line(
        "vms:import_network_add",
        page(EVERY_ADMIN),
        change(EVERY_ADMIN),
        data=lambda w: {"network": "10.2.0.0/16", "reason": "a mirror", "agreed": "10.2.0.0/16"},
    ),
    Line(
        "vms:import_network",
        page(EVERY_ADMIN),
        change(EVERY_ADMIN),
        "import_network",
        data=lambda w: {"confirm_name": w.import_network.network},
    ),
    Line("vms:upload", page(EVERY_ADMIN), NO, "upload"),
    Line(
        "vms:upload_start",
        NO,
        change(EVERY_ADMIN, status=200),
        "upload",
        data=lambda w: {"name": "a.iso", "size": 5, "head": ""},
    ),
    Line(
        "vms:upload_chunk",
        NO,
        change(EVERY_ADMIN, status=200),
        "sent_upload",
        {"offset": 0},
        silent="a part of what was begun",
    ),
    Line("vms:upload_retry", NO, change(EVERY_ADMIN), "failed_upload"),
    Line("vms:upload_choose", NO, change(EVERY_ADMIN), "two_disks_upload", data=lambda w: {"disk": "2"}),
    Line("vms:upload_drop", NO, change(EVERY_ADMIN), "upload"),
    Line("vms:image_deprecate", NO, change(EVERY_ADMIN), "image", data=lambda w: {"reason": "too old"}),
    # The estate
    Line("hosts:list", page(ESTATE), NO),
    Line("hosts:add", page(EVERY_ADMIN), change(EVERY_ADMIN), data=_new_host),
    Line("hosts:detail", page(ESTATE), NO, "host"),
    Line("hosts:join", page(EVERY_ADMIN), NO, "ssh_host"),
    Line("hosts:greet", NO, change(EVERY_ADMIN, told=ESTATE), "ssh_host"),
    Line(
        "hosts:confirm",
        NO,
        change(EVERY_ADMIN, told=ESTATE),
        "ssh_host",
        data=lambda w: {"fingerprint": w.ssh_host.offered_fingerprint},
    ),
    Line("hosts:pools", page(ESTATE), NO),
    Line("hosts:pool", page(ESTATE), NO, "place"),
    Line("hosts:pool-refresh", NO, change(ESTATE), "place"),
    Line("hosts:pool-start", NO, change(ESTATE), "place"),
    Line("hosts:pool-stop", NO, change(ESTATE), "other_pool"),
    Line("hosts:pool-autostart", NO, change(ESTATE), "place"),
    Line(
        "hosts:pool-remove",
        NO,
        change(EVERY_ADMIN),
        "other_pool",
        data=lambda w: {"confirm_name": w.other_pool.pool.name},
    ),
    Line(
        "hosts:pool-give-back",
        NO,
        change(EVERY_ADMIN),
        "taken_pool",
        data=lambda w: {"confirm_name": w.taken_pool.pool.name},
    ),
    Line(
        "hosts:pool-take-over",
        page(EVERY_ADMIN),
        change(EVERY_ADMIN),
        "found_pool",
        data=lambda w: {"seen": seen_as(w.found_pool)},
    ),
    Line(
        "hosts:pool-add",
        page(EVERY_ADMIN),
        change(EVERY_ADMIN),
        "host",
        data=lambda w: {"name": "spare", "kind": "dir", "path": "/srv/spare"},
    ),
    Line(
        "hosts:volume-add",
        NO,
        change(ESTATE),
        "place",
        data=lambda w: {"name": "new.qcow2", "capacity": "1", "form": "qcow2"},
    ),
    Line("hosts:upload-begin", NO, change(ESTATE), "place", data=lambda w: {"upload-name": "new.qcow2"}),
    Line("hosts:upload", page(ESTATE), NO, "volume_upload"),
    Line(
        "hosts:upload-start",
        NO,
        change(EVERY_ADMIN, told=ESTATE, status=200, refusal=422),
        "volume_upload",
        data=lambda w: {"name": "a.qcow2", "size": 5, "head": ""},
    ),
    Line(
        "hosts:upload-chunk",
        NO,
        change(EVERY_ADMIN, told=ESTATE, status=200, refusal=422),
        "sent_volume_upload",
        {"offset": 0},
        silent="a part of what was begun",
    ),
    Line("hosts:upload-retry", NO, change(ESTATE), "failed_volume_upload"),
    Line("hosts:upload-choose", NO, change(ESTATE), "two_disks_volume_upload", data=lambda w: {"disk": "2"}),
    Line("hosts:upload-drop", NO, change(ESTATE), "volume_upload"),
    Line("hosts:volume", page(ESTATE), NO, "volume"),
    Line("hosts:volume-download", NO, change(ESTATE), "volume"),
    Line("hosts:volume-take", NO, change(frozenset(), told=ESTATE), "volume"),
    Line("hosts:volume-grow", NO, change(ESTATE), "volume", data=lambda w: {"capacity": "2"}),
    Line(
        "hosts:volume-to-pool",
        NO,
        change(ESTATE),
        "volume",
        data=lambda w: {"other-pool": w.other_pool.pk, "other-name": "there.qcow2", "what": "move"},
    ),
    Line("hosts:volume-clone", NO, change(ESTATE), "volume", data=lambda w: {"name": "copy.qcow2"}),
    Line(
        "hosts:volume-delete",
        NO,
        change(ESTATE),
        "volume",
        data=lambda w: {"confirm_name": w.volume.name},
    ),
    Line("hosts:maintenance", NO, change(ESTATE), "host", data=lambda w: {"on": "1", "reason": "new memory"}),
    Line("hosts:jump", NO, change(EVERY_ADMIN), "host", data=lambda w: {"jump": "rack-1.example.org"}),
    Line(
        "hosts:remove", NO, change(EVERY_ADMIN), "ssh_host", data=lambda w: {"confirm_name": w.ssh_host.name}
    ),
    Line(
        "hosts:give-up", NO, change(EVERY_ADMIN), "ssh_host", data=lambda w: {"confirm_name": w.ssh_host.name}
    ),
    Line("hosts:prove", NO, change(EVERY_ADMIN, told=ESTATE), "host"),
    Line("networks:list", page(ESTATE), NO),
    Line("networks:add", page(EVERY_ADMIN), change(EVERY_ADMIN), data=_new_network),
    Line("networks:detail", page(ESTATE), NO, "network"),
    Line("networks:rename", NO, change(EVERY_ADMIN), "network", data=lambda w: {"title": "Other"}),
    Line(
        "networks:remove", NO, change(EVERY_ADMIN), "network", data=lambda w: {"confirm_name": w.network.name}
    ),
    # Asking and deciding
    Line("vms:catalogue", page(ALL), NO),
    # The stranger may ask for it as well, though not for this project.
    Line("vms:ask", page(ASK), change(REQUEST, told=ASK, refusal=422), "item", data=_wish),
    Line("vms:what_if", NO, page(ASK), "item", data=_wish, silent="only looks, as one types"),
    Line("vms:copy", page(SEE), NO, "request"),
    Line(
        "vms:edit",
        page(OWNER) | dict.fromkeys(SEE - OWNER, 302),
        change(OWNER, told=SEE),
        "request",
        data=lambda w: {**_wish(w), "spec_hash": w.request.spec_hash},
    ),
    Line("operations:list", page(ALL), NO),
    Line("operations:inbox", page(ALL), NO),
    Line("operations:policies", page(EVERY_ADMIN), NO),
    Line("operations:policy_add", page(EVERY_ADMIN), change(EVERY_ADMIN), data=_policy),
    Line("operations:policy", page(EVERY_ADMIN), change(EVERY_ADMIN), "policy", data=_policy),
    Line("operations:policy_move", NO, change(EVERY_ADMIN), "policy", data=lambda w: {"to": "down"}),
    Line("operations:policy_switch", NO, change(EVERY_ADMIN), "policy", data=lambda w: {"enabled": "1"}),
    Line(
        "operations:policy_delete",
        NO,
        change(EVERY_ADMIN),
        "policy",
        data=lambda w: {"confirm_name": w.policy.name},
    ),
    Line("operations:deputies", page(ALL), change(APPROVERS, told=ALL, refusal=422), data=_deputy),
    Line("operations:deputy_end", NO, change(EVERY_ADMIN | {"approver"}, told=DEPUTY), "delegation"),
    Line("operations:detail", page(SEE), NO, "request"),
    Line("operations:decide", NO, change(APPROVE), "request", data=_approval),
    Line("operations:together", page(SEE), NO, kwargs={"batch": BATCH}),
    Line("operations:card", page(SEE), NO, "request"),
    Line(
        "operations:comment",
        NO,
        change(OWNER | APPROVE | USE, told=SEE),
        "request",
        data=lambda w: {"text": "why?"},
    ),
    Line("operations:withdraw", NO, change(frozenset({"owner"}), told=SEE), "request"),
    Line("operations:cancel", NO, change(USE, told=SEE), "running"),
    # Machines
    Line("vms:list", page(ALL), NO),
    Line("vms:detail", page(SEE), NO, "machine"),
    Line("vms:act", NO, change(USE, told=SEE), "machine", {"verb": "start"}),
    Line("vms:many", NO, change(USE, told=SEE, refusal=422), data=_many),
    Line("vms:settings", page(SEE), change(USE, told=SEE, refusal=422), "machine", data=_settings),
    Line("vms:autostart", NO, change(USE, told=SEE), "machine", data=lambda w: {"on": "1"}),
    Line("vms:settings_back", NO, change(USE, told=SEE), "waiting", data=_back),
    Line("vms:name", page(SEE), change(USE, told=SEE, refusal=422), "machine", data=_name),
    Line("vms:clone", page(SEE), change(USE, told=SEE, refusal=422), "machine", data=_clone),
    Line("vms:template", page(SEE), change(USE - OWNER, told=SEE, refusal=422), "machine", data=_template),
    Line("vms:size", page(SEE), change(USE, told=SEE, refusal=422), "machine", data=_resize),
    Line("vms:disk_add", page(SEE), change(USE, told=SEE, refusal=422), "machine", data=_disk),
    Line(
        "vms:disk_attach",
        page(SEE),
        change(ESTATE, told=SEE, refusal=422),
        "machine",
        data=lambda w: {"token": uuid.uuid4(), "volume": w.volume.pk, "why": "old data"},
    ),
    Line("vms:disk_detach", NO, change(ESTATE, told=SEE), "machine", {"target": "vdb"}, _disk_as_seen),
    Line("vms:disk", page(SEE), change(USE, told=SEE, refusal=422), "machine", {"target": "vda"}, _growth),
    Line(
        "vms:disk_delete",
        NO,
        change(USE, told=SEE),
        "machine",
        {"target": "vdb"},
        lambda w: {"confirm_name": "vdb", **_disk_as_seen(w)},
    ),
    Line("vms:lease", page(SEE), change(USE, told=SEE, refusal=422), "machine", data=_longer),
    Line(
        "vms:lease_edit",
        page(OWNER) | dict.fromkeys(SEE - OWNER, 302),
        change(OWNER, told=SEE),
        "extension",
        data=lambda w: {**_longer(w), "spec_hash": w.extension.spec_hash},
    ),
    Line("vms:lease_copy", page(SEE), NO, "extension"),
    Line("vms:disk_limits", NO, change(USE, told=SEE, refusal=422), "machine", {"target": "vda"}, _limits),
    Line(
        "vms:disk_move",
        NO,
        change(USE - OWNER, told=SEE, refusal=422),
        "machine",
        {"target": "vda"},
        lambda w: {"pool": w.other_pool.pk, **_disk_as_seen(w, "vda")},
    ),
    Line(
        "vms:cards",
        page(SEE),
        # Who only looks is offered no network.
        change(USE, told=SEE, refusal=422),
        "machine",
        data=lambda w: {"network": w.network.pk, **_cards(w)},
    ),
    Line("vms:card", page(SEE), NO, "machine", {"mac": MAC}),
    Line("vms:card_link", NO, change(USE, told=SEE), "machine", {"mac": MAC}, _card),
    Line(
        "vms:card_network",
        NO,
        # Who only looks is offered no network.
        change(USE, told=SEE, refusal=422),
        "machine",
        {"mac": MAC},
        lambda w: {"network": w.network.pk, **_card(w)},
    ),
    Line("vms:card_model", NO, change(USE, told=SEE), "machine", {"mac": MAC}, _card),
    Line("vms:card_limits", NO, change(USE, told=SEE, refusal=422), "machine", {"mac": MAC}, _bandwidth),
    Line("vms:disk_bus", NO, change(USE, told=SEE), "machine", {"target": "vdb"}, _bus),
    Line("vms:card_remove", NO, change(USE, told=SEE), "machine", {"mac": MAC}, _card),
    Line("vms:host_devices", page(SEE), NO, "with_devices"),
    Line(
        "vms:host_device_give",
        NO,
        change(ESTATE, told=SEE),
        "with_devices",
        data=lambda w: {"key": "usb:058f:6387"},
    ),
    Line(
        "vms:host_device_take",
        NO,
        change(ESTATE, told=SEE),
        "with_devices",
        data=lambda w: {"key": "usb:046d:c52b"},
    ),
    Line("vms:media", page(SEE), NO, "machine"),
    Line("vms:media_change", NO, change(USE, told=SEE), "machine", {"target": "sda"}, _drives),
    Line("vms:drive_add", NO, change(USE, told=SEE), "machine", data=lambda w: {"bus": "sata", **_drives(w)}),
    Line("vms:drive_remove", NO, change(USE, told=SEE), "machine", {"target": "sdb"}, _drives),
    Line("vms:export", NO, change(USE, told=SEE), "machine"),
    Line("vms:exports", page(ALL), NO),
    Line("vms:export_take", NO, change(USE, told=SEE, status=200, refusal=403), "export"),
    Line("vms:export_delete", NO, change(USE, told=SEE), "export"),
    Line("vms:discard", page(SEE), change(USE, told=SEE, refusal=422), "saved", data=_discarding),
    Line("vms:delete", NO, change(USE, told=SEE), "machine", data=lambda w: {"confirm_name": w.machine.name}),
    Line("vms:restore", NO, change(USE, told=SEE), "binned"),
    Line("vms:found", page(ESTATE), NO),
    Line("vms:adopt", page(ESTATE), change(ESTATE), "foreign", data=_adoption),
    Line(
        "vms:look_again",
        page(ESTATE),
        change(ESTATE),
        "adopted",
        data=lambda w: {"digest": "a"},
    ),
    Line(
        "vms:release",
        NO,
        change(ESTATE, told=SEE),
        "adopted",
        data=lambda w: {"confirm_name": w.adopted.name},
    ),
    Line("console:vnc", page(USE), NO, "machine"),
    Line("console:serial", page(USE), NO, "machine"),
    Line(
        "console:ticket",
        NO,
        answers(dict.fromkeys(USE, (409, REFUSED))),
        "machine",
        data=lambda w: {"kind": "vnc"},
    ),
)

#: Live pieces of pages, by the name of their panel: the row they are about, and who is sent it.
PANELS = {
    "accounts.bell": ("owner", frozenset({"owner"})),
    "accounts.newer": ("owner", frozenset({"owner"})),
    "operations.consent": ("request", SEE),
    "operations.progress": ("request", SEE),
    "operations.together": ("batch", SEE),
    "operations.left": ("project", REQUEST),
    "operations.asked": ("request", SEE),
    "operations.discussion": ("request", SEE),
    "operations.actions": ("request", SEE),
    "operations.waiting": ("request", SEE),
    "operations.deciding": ("request", SEE),
    # How many wait for them; for most none.
    "operations.arrivals": ("request", ALL),
    "operations.awaited": ("request", ALL),
    "hosts.row": ("host", ESTATE),
    "hosts.join": ("host", EVERY_ADMIN),
    "vms.row": ("machine", SEE),
    "vms.state": ("machine", SEE),
    "vms.status": ("machine", SEE),
    "vms.export": ("machine", SEE),
}
