"""Hosts of Xen in the portal: which addresses, what their enrolment does, and that nothing is built there."""

from dataclasses import replace

import pytest
from django.urls import reverse

from portal.core.errors import Denied
from portal.drivers.fake import FakeDriver
from portal.drivers.types import Accelerator
from portal.hosts import services, steps
from portal.hosts.addresses import check_uri
from portal.hosts.models import Host, ImageAttachment
from portal.operations.models import StepRecord
from portal.operations.states import State
from tests.factories import make_catalogue, make_host, make_image, make_machine, make_network, make_place
from tests.hosts.conftest import carry_out
from vms import offers, placement, power, virtualization
from vms.models import Observed

pytestmark = [pytest.mark.database, pytest.mark.django_db]
TOLD = {"host": {"hypervisor": "Xen", "hypervisor_version": 4017004, "libvirt_version": 9000000}}


@pytest.mark.parametrize("uri", ["xen:///system", "xen+ssh://gate@rack-1:2222/system", "xen+ssh://rack/system"])
def test_addresses_of_xen_are_accepted(uri):
    assert check_uri(uri) == uri


@pytest.mark.parametrize(
    "uri",
    [
        "xen:///",
        "xen:///session",
        "xen+tcp://rack/system",
        "xen+tls://rack/system",
        "xen+unix:///system?socket=/tmp/x",
        "xen+ssh://rack/system?command=id",
        "xen+ssh://-oProxyCommand=id/system",
        "xen+ssh://rack/system\n",
        "XEN:///system",
    ],
)
def test_no_other_ones_are(uri):
    """Red when what qemu's addresses may not have, xen's may."""
    with pytest.raises(Denied, match="xen in place of qemu"):
        check_uri(uri)


@pytest.fixture
def fake(monkeypatch):
    """A host of Xen that answers the steps; it would boot anything."""
    made = FakeDriver()
    told = replace(made.host_info(), hypervisor="Xen", hypervisor_version=4_017_004)
    monkeypatch.setattr(made, "host_info", lambda: told)
    monkeypatch.setattr(steps, "call", lambda host, verb, *args, timeout: getattr(made, verb)(*args))
    return made


def test_one_is_enrolled_without_a_guest_and_gets_no_images(chief, client, fake, monkeypatch):
    """Red when Prove boots something of the portal's on Xen, or the images are copied for nothing."""
    monkeypatch.setattr(fake, "prove", lambda *_args: pytest.fail("it was booted"))
    make_image(source="/nowhere.qcow2")
    begun = services.enrol_host(actor=chief, name="xen-1", uri="xen:///system", pool_path="/srv/gatehouse")
    assert carry_out(begun).state == State.SUCCEEDED
    host = Host.objects.get()
    assert (host.accelerator, host.is_xen, host.gives) == ("xen", True, [])
    assert host.pools.exists() and not ImageAttachment.objects.exists()
    assert StepRecord.objects.get(name="prove").remark == "xen_builds_none"
    client.force_login(chief)
    page = client.get(reverse("hosts:detail", args=[host.pk])).content.decode()
    assert "The portal builds no machines on Xen." in page and "Begin maintenance" not in page
    assert "KVM" not in page and "4.17.4" in page and "Older than" not in page
    assert "can be adopted" in client.get(reverse("hosts:join", args=[host.pk])).content.decode()
    assert "Xen" in client.get(reverse("hosts:list")).content.decode()


def test_what_is_proven_again_may_be_another_hypervisor(chief, fake):
    """Red when what a host was is kept though it says otherwise."""
    host = make_host(readiness=TOLD, accelerator=Accelerator.KVM)
    make_place(host)
    assert carry_out(services.enrol_again(actor=chief, host=host)).state == State.SUCCEEDED
    host.refresh_from_db()
    assert host.accelerator == "xen"


@pytest.mark.parametrize("wanted", ["best", "kvm", "qemu"])
def test_nothing_is_placed_there_even_where_an_image_is(wanted):
    """Red when placement takes every accelerator for one that machines are built by."""
    image = make_image()
    make_place(make_host(readiness=TOLD, accelerator=Accelerator.XEN), image=image)
    assert not placement.candidates(image.sha256, wanted).exists()
    assert not placement.places_of(image.sha256).exists()
    strong = make_place(make_host("strong", "fake:///strong", accelerator="kvm"), "strong", image=image)
    assert [found.pool for found in placement.candidates(image.sha256, wanted)] == [strong]


def test_an_offer_does_not_count_a_host_of_xen():
    """Red when any host with the image counts as one that builds."""
    place = make_place(make_host(readiness=TOLD, accelerator=Accelerator.XEN))
    catalogue = make_catalogue(place.images.get().image, make_network())
    assert "No host was proven" in offers.offer(catalogue.item).obstacle
    assert offers.offer(catalogue.item).accelerators == []


def test_neither_clones_nor_templates_are_made_of_its_machines(cast):
    """Red when what is built of a machine of Xen is refused by nobody before its host does."""
    host = make_host(readiness=TOLD, accelerator=Accelerator.XEN)
    machine = make_machine(cast, "old-web", host, accelerator="xen", observed_state=Observed.SHUTOFF)
    for verb in ("clone", "template"):
        assert "builds no machines" in power.why_not(cast.operator, machine, verb)
    for verb in ("start", "export", "edit"):
        assert power.why_not(cast.operator, machine, verb) == ""
    assert virtualization.words("xen", machine.devices) == "Paravirtualization on Xen"
    assert virtualization.words("xen", "emulated") == "Full virtualization on Xen"
