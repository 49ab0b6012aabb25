"""Definitions that others made: everything in them is understood or kept, and nothing else is said."""

import copy
import operator
import time
from pathlib import Path

import libvirt
import pytest
from lxml import etree

from portal.drivers.errors import InvalidSpec
from portal.drivers.inspection import LONGEST, Kind, inspect
from portal.drivers.libvirt.xml.foreign.conversions import scale
from portal.drivers.libvirt.xml.foreign.document import is_element, parse, serialise

DATA = Path(__file__).parents[1] / "data/foreign"
SAMPLES = {
    "domain": Kind.DOMAIN,
    "odd": Kind.DOMAIN,
    "network": Kind.NETWORK,
    "volume": Kind.VOLUME,
}
SMALL = b"<domain type='test'><name>a</name><memory>1024</memory><os><type>hvm</type></os>%s</domain>"


def sample(name):
    return (DATA / f"{name}.xml").read_bytes()


def inspected(name):
    return inspect(SAMPLES[name], sample(name))


def kept(found):
    return {item["at"]: item.get("value", item.get("xml")) for item in found.kept}


@pytest.fixture(scope="module")
def libvirtd():
    """libvirt's driver for tests, which reads definitions as every driver does."""
    libvirt.registerErrorHandler(lambda *_: None, None)
    opened = libvirt.open("test:///default")
    yield opened
    opened.close()


def test_a_rich_domain_is_understood():
    """Red when a line of the tables is gone or reads another place."""
    found = inspected("domain").understood
    devices = found.pop("devices")
    assert found == {
        "type": "test",
        "name": "builder",
        "uuid": "11111111-2222-4333-8444-555555555555",
        "title": "Builds <things>",
        "description": "a <b> & c",
        "memory_bytes": 2 << 30,
        "current_memory_bytes": 1 << 30,
        "vcpus": 4,
        "current_vcpus": 2,
        "cpu": {
            "mode": "custom", "match": "exact", "check": "partial", "model": "Nehalem", "fallback": "forbid",
            "vendor": "Intel",
            "topology": {"sockets": 1, "dies": 1, "cores": 2, "threads": 2},
            "features": [{"name": "vmx", "policy": "disable"}],
        },
        "os": {
            "type": "hvm", "architecture": "x86_64", "machine": "pc-q35-7.2",
            "loader": "/firmware/code.fd", "loader_type": "pflash", "loader_readonly": True,
            "secure_boot": False, "nvram": "/nvram/builder.fd", "nvram_template": "/firmware/vars.fd",
            "boot_menu": True,
        },
        "features": ["acpi", "pae"],
        "smm": True,
        "clock": {
            "offset": "localtime",
            "timers": [{"name": "rtc", "tickpolicy": "catchup"}, {"name": "hpet", "present": False}],
        },
        "on_poweroff": "destroy",
        "on_reboot": "restart",
        "on_crash": "preserve",
        "traces": {"firmware": "left", "tpm": "left"},
    }  # fmt: skip
    root, remote, disc = devices["disks"]
    assert root["driver"] == {"name": "qemu", "type": "qcow2", "cache": "none", "io": "native"}
    assert (root["limits"], root["boot_order"], root["serial"]) == ({"total_iops_sec": 500}, 1, "WD-1")
    assert remote["source"]["hosts"] == [{"name": "mon-1", "port": 6789}, {"name": "mon-2"}]
    assert remote["shareable"] and "source" not in disc and disc["readonly"]
    card, virtual_function = devices["interfaces"]
    assert (card["source"], card["mtu"], card["link"]) == ({"bridge": "br0"}, 9000, "down")
    assert card["vlan"] == [{"id": 42}]
    inbound = {"average": 1000, "peak": 5000, "burst": 1024}
    assert card["limits"] == {"inbound": inbound, "outbound": {"average": 128}}
    place = {"type": "pci", "domain": "0x0000", "bus": "0x06", "slot": "0x12", "function": "0x6"}
    assert virtual_function["host_address"] == place and virtual_function["managed"]
    assert card["filter"] == {"name": "clean-traffic", "parameters": [{"name": "IP", "value": "10.0.0.7"}]}
    assert devices["tpms"] == [{"model": "tpm-crb", "backend": "emulator", "version": "2.0"}]
    assert devices["memories"] == [{"model": "nvdimm", "path": "/memory/builder"}]
    assert devices["graphics"][0]["port"] == -1
    assert devices["host_devices"][0]["address"]["slot"] == "0x12"
    assert devices["host_devices"][1]["usb"] == {"vendor": "0x1234", "product": "0xbeef"}


def test_what_is_not_understood_of_it_is_named_where_it_stands():
    """Red when a path has no number among its like, or an attribute of something understood is left out."""
    found = kept(inspected("domain"))
    assert found["/comment()"] == "made by hand"
    assert found["/domain/vcpu/@cpuset"] == "0-3"
    assert found["/domain/devices/disk[1]/alias"] == '<alias name="ua-root"/>'
    assert found["/domain/devices/disk[1]/driver/@queues"] == "4"
    assert found["/domain/devices/disk[2]/source/config"] == '<config file="/etc/ceph/ceph.conf"/>'
    assert found["/domain/devices/comment()"] == "a device of tomorrow"
    assert found["/domain/devices/gizmo"] == '<gizmo shape="round"><part>1</part></gizmo>'
    assert found["/domain/features/apic"] == '<apic eoi="on"/>'
    assert "qemu:arg" in found["/domain/qemu:commandline"]
    assert 'app:colour="blue"' in found["/domain/metadata/app:note"]
    assert found["/domain/devices/graphics/@passwd"] == "secret"


def test_networks_and_volumes_are_understood():
    network, volume = inspected("network"), inspected("volume")
    assert network.understood["ips"] == [
        {
            "address": "10.7.0.1",
            "netmask": "255.255.255.0",
            "dhcp_ranges": [{"start": "10.7.0.10", "end": "10.7.0.99"}],
            "dhcp_hosts": [{"mac": "52:54:00:00:00:09", "name": "nine", "ip": "10.7.0.9"}],
        },
        {"family": "ipv6", "address": "fd00::1", "prefix": 64},
    ]
    assert network.understood["dns_hosts"] == [{"ip": "10.7.0.9", "names": [{"name": "a"}, {"name": "b"}]}]
    assert "/network/ip[1]/dhcp/bootp" in kept(network) and "/network/dnsmasq:options" in kept(network)
    sizes = [volume.understood[f"{name}_bytes"] for name in ("capacity", "allocation", "physical")]
    assert sizes == [1 << 30, 1 << 20, 196616]
    assert volume.understood["target"]["permissions"]["mode"] == "0600"
    assert kept(volume)["/volume/target/clusterSize"] == '<clusterSize unit="KiB">64</clusterSize>'


def test_what_makes_no_sense_is_kept_and_not_guessed():
    """Red when a field raises, or claims what it could not read; libvirt takes the first of two names."""
    found = inspected("odd")
    assert found.understood["name"] == "odd-one" and found.understood["memory_bytes"] == 1 << 20
    assert "current_vcpus" not in found.understood and "features" not in found.understood
    assert found.understood["devices"]["disks"] == [{}, {"type": "file", "target": {"dev": "vda"}}]
    assert "title" not in found.understood
    texts = [item["value"] for item in found.kept if item["at"] == "/domain/devices/text()"]
    assert texts == ["stray", "astray"]
    found = kept(found)
    assert found["/domain/title"] == "<title>with <b>bold</b></title>"
    assert found["/domain/name[2]"] == "<name>two</name>"
    assert found["/domain/memory[2]"] == "<memory>2048</memory>"
    assert found["/domain/vcpu/@current"] == "none"
    assert found["/domain/devices/disk[1]"] == "<disk/>"
    assert found["/domain/nonsense"] == '<nonsense xml:lang="en" a="1">text</nonsense>'


@pytest.mark.parametrize("name", SAMPLES)
def test_nothing_in_a_definition_is_overlooked(name):
    """Whatever is changed in a document changes what is said of it. Red when `kept` leaves anything out."""
    root, kind = parse(sample(name), SAMPLES[name]), SAMPLES[name]
    before = inspect(kind, serialise(root).encode())

    def other(number, change):
        """Return what is said when `change` was done to the node of that number."""
        changed = copy.deepcopy(root.getroottree()).getroot()
        change(list(changed.iter())[number])
        return inspect(kind, serialise(changed).encode())

    changes = 0
    for number, node in enumerate(root.iter()):
        tried = [operator.methodcaller("set", name, "changed") for name in node.attrib]
        if number:
            tried.append(lambda twin: twin.getparent().remove(twin))
        if is_element(node) and (node.text or "").strip():
            tried.append(lambda twin: setattr(twin, "text", "changed"))
        for change in tried:
            assert other(number, change) != before, etree.tostring(node)
        changes += len(tried)
    assert changes > 20


@pytest.mark.parametrize("name", SAMPLES)
def test_a_document_is_written_as_it_was_read(name):
    """Red when the parser drops comments, CDATA, prefixes, a DOCTYPE or blanks."""
    written = serialise(parse(sample(name), SAMPLES[name]))
    heads = ("<?xml", "<!DOCTYPE")  # written anew
    lines = [line for line in sample(name).decode().splitlines() if not line.startswith(heads)]
    assert len(lines) > 10 and [line for line in lines if line not in written] == []
    assert "<!ENTITY" in written or name != "odd"
    assert serialise(parse(written.encode(), SAMPLES[name])) == written


@pytest.mark.parametrize("name", ["domain", "network"])
def test_libvirt_takes_the_samples_as_they_are_understood(libvirtd, name):
    """Red when the sample is one that libvirt refuses, or a value is read otherwise than libvirt reads it."""
    define = libvirtd.networkDefineXML if name == "network" else libvirtd.defineXML
    made = define(sample(name).decode())
    found = inspected(name).understood
    assert made.name() == found["name"]
    if name != "network":
        assert made.maxMemory() * 1024 == found["memory_bytes"]
    made.undefine()


@pytest.mark.parametrize(
    "unit", ["b", "bytes", "B", "k", "KB", "KiB", "kib", "M", "MB", "MiB", "G", "GB", "GiB", "T"]
)
def test_units_are_those_of_libvirt(libvirtd, unit):
    """Red when KB counts in 1024, or case matters."""
    number = (64 << 40) // scale(unit)
    text = SMALL.replace(b"<memory>1024", f"<memory unit='{unit}'>{number}".encode()) % b""
    made = libvirtd.defineXML(text.decode())
    # libvirt rounds up to whole KiB.
    assert made.maxMemory() == -(-inspect(Kind.DOMAIN, text).understood["memory_bytes"] // 1024)
    made.undefine()


@pytest.mark.parametrize("unit", ["", "kibibyte", "XB", "KiBB", "kk"])
def test_a_unit_that_libvirt_does_not_know_is_kept(libvirtd, unit):
    text = SMALL.replace(b"<memory>", f"<memory unit='{unit}'>".encode()) % b""
    found = inspect(Kind.DOMAIN, text)
    assert "memory_bytes" not in found.understood and "/domain/memory" in kept(found)
    if unit:
        with pytest.raises(libvirt.libvirtError):
            libvirtd.defineXML(text.decode())


def test_what_stands_there_twice_is_read_as_libvirt_reads_it(libvirtd):
    text = SMALL.replace(b"<memory>", b"<name>b</name><memory unit='MiB'>2</memory><memory>") % b""
    made = libvirtd.defineXML(text.decode())
    found = inspect(Kind.DOMAIN, text)
    assert made.name() == found.understood["name"]
    assert made.maxMemory() << 10 == found.understood["memory_bytes"]
    assert set(kept(found)) == {"/domain/name[2]", "/domain/memory[2]"}
    made.undefine()


def test_firmware_and_boot_devices_are_understood(libvirtd):
    firmware = b"<os firmware='efi'><firmware><feature enabled='no' name='secure-boot'/></firmware>"
    boot = b"<boot dev='cdrom'/><boot dev='hd'/></os>"
    text = SMALL.replace(b"<os>", firmware).replace(b"</os>", boot) % b""
    libvirtd.defineXML(text.decode()).undefine()
    found = inspect(Kind.DOMAIN, text)
    assert found.kept == [] and found.understood["os"] == {
        "type": "hvm",
        "firmware": "efi",
        "firmware_features": [{"name": "secure-boot", "enabled": False}],
        "boot": [{"dev": "cdrom"}, {"dev": "hd"}],
    }


def test_what_libvirt_itself_writes_is_understood(libvirtd):
    for kind, made in (
        (Kind.DOMAIN, libvirtd.lookupByName("test")),
        (Kind.NETWORK, libvirtd.networkLookupByName("default")),
    ):
        assert inspect(kind, made.XMLDesc().encode()).understood["name"] == made.name()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "well-formed"),
        (b"\0\1\2", "well-formed"),
        (b"<domain>", "well-formed"),
        (b"<network/>", "no <domain>"),
        (b"<domainsnapshot/>", "no <domain>"),
        (b"<domain>" + b"<a>" * 300 + b"</a>" * 300 + b"</domain>", "depth"),
        (b"<domain>" + b"x" * LONGEST + b"</domain>", "longer than 10 MiB"),
    ],
    ids=["nothing", "bytes", "cut off", "a network", "a snapshot", "too deep", "too long"],
)
def test_what_is_no_definition_is_refused_with_the_reason(content, why):
    with pytest.raises(InvalidSpec, match=why):
        inspect(Kind.DOMAIN, content)


@pytest.mark.parametrize(
    "odd",
    [
        b"<qemu:commandline><qemu:arg value='-s'/></qemu:commandline>",
        b"<title x:lang='en'>a</title>",
        b"<a xmlns:x='f oo'/>",
        b"<a xmlns:x=''/>",
        b"<a:b:c/><a:/><:a/>",
        b"<?a:b c?>",
        b"<a xml:id='1 2'/>",
        b"<a xml:id='one'/><a xml:id='one'/>",
    ],
    ids=bytes.decode,
)
def test_what_libvirt_takes_though_it_is_odd_is_inspected_and_kept(libvirtd, odd):
    """Red when errors of namespaces refuse a document, as they do for lxml."""
    text = SMALL % odd
    libvirtd.defineXML(text.decode()).undefine()
    found = inspect(Kind.DOMAIN, text)
    assert found.understood["name"] == "a" and found.kept
    assert serialise(parse(serialise(parse(text, "domain")).encode(), "domain")).count("<") == text.count(
        b"<"
    )


@pytest.mark.parametrize(
    ("kind", "text", "name"),
    [
        (Kind.DOMAIN, b"<graphics type='vnc' autoport='on'/>", "devices"),
        (Kind.DOMAIN, b"<hostdev mode='subsystem' type='pci' managed='on'/>", "devices"),
        (Kind.NETWORK, b"<bridge name='b' stp='no'/>", "bridge"),
        (Kind.NETWORK, b"<portgroup name='p' default='on'/>", "portgroups"),
    ],
)
def test_a_word_that_libvirt_does_not_know_there_is_kept(kind, text, name):
    """Red when yes and on are the same: libvirt takes one of both and reads the other as its default."""
    inner = b"<devices>" + text + b"</devices>" if name == "devices" else text
    found = inspect(kind, f"<{kind}>".encode() + inner + f"</{kind}>".encode())
    assert "True" not in str(found.understood) and "False" not in str(found.understood)
    assert [item["value"] for item in found.kept] == [text.split(b"'")[-2].decode()]


def test_a_host_device_has_the_address_of_its_kind():
    usb = b"<hostdev type='usb'><source><address bus='1' device='2'/></source></hostdev>"
    found = inspect(Kind.DOMAIN, SMALL % (b"<devices>" + usb + b"</devices>"))
    assert found.kept == []
    assert found.understood["devices"]["host_devices"] == [
        {"type": "usb", "address": {"bus": "1", "device": "2"}}
    ]


@pytest.mark.parametrize("where", ["root", "inside"])
def test_reading_takes_no_longer_for_each_namespace_an_element(where):
    """Red when each element is asked for its namespaces (`nsmap`): 12 s of a processor instead of 0.1."""
    spaces = b" ".join(b"xmlns:p%d='u%d'" % (number, number) for number in range(4000))
    outer, inner = (spaces, b"") if where == "root" else (b"", spaces)
    text = b"<domain %s><metadata><a %s>%s</a></metadata>%s</domain>"
    begin = time.process_time()
    found = inspect(Kind.DOMAIN, text % (outer, inner, b"<b/>" * 10_000, b"<c/>" * 1000))
    assert len(found.kept) == 1001 and time.process_time() - begin < 3


def test_reading_takes_no_longer_for_each_attribute_beside_others():
    """Red when values are asked for by `attrib`: 9 s of a processor instead of 0.1, and minutes for more."""
    text = b"<domain type='test' " + b" ".join(b"a%d='%d'" % (one, one) for one in range(30_000)) + b"/>"
    begin = time.process_time()
    found = inspect(Kind.DOMAIN, text)
    assert found.kept[-1] == {"at": "/domain/@a29999", "value": "29999"} and len(found.kept) == 30_000
    assert time.process_time() - begin < 3


@pytest.mark.parametrize(
    ("inner", "told"),
    [
        ("<a><p:b/></a>", '<a xmlns:p="u"><p:b/></a>'),
        ("<a><p:b xmlns:p='v'/></a>", '<a><p:b xmlns:p="v"/></a>'),
        ("<a><p:b xmlns:p='v'/><p:c/></a>", '<a xmlns:p="u"><p:b xmlns:p="v"/><p:c/></a>'),
        ("<a q:c='&lt;x&gt;'><![CDATA[</a>]]><!--<a>--><?p <a>?></a>", None),
        ("<a xmlns:q='u'>p:x</a>", '<a xmlns:q="u">p:x</a>'),
        ("<p:a/>", '<p:a xmlns:p="u"/>'),
        ("<a xmlns='v'><b xmlns=''/></a>", '<a xmlns="v"><b xmlns=""/></a>'),
        ("<x:a/>", "<x:a/>"),
    ],
)
def test_an_element_that_is_kept_has_the_namespaces_that_it_uses(inner, told):
    """Red when a prefix is looked for outside alone, or one that something else in it declares counts."""
    text = f"<domain xmlns:p='u' xmlns:o='w'>{inner}</domain>".encode()
    [item] = inspect(Kind.DOMAIN, text).kept
    assert item["xml"] == (told or inner.replace("'", '"'))


def test_attributes_of_what_is_understood_have_the_names_that_they_were_given():
    """Red when what only looks like a declaration is none of its attributes."""
    found = kept(inspect(Kind.DOMAIN, b"<domain xmlns:p='u' p:a='1' b='2' xmlns:x:y='3' xmlns:-='4'/>"))
    names = ["p:a", "b", "xmlns:x:y", "xmlns:-"]
    assert found == {f"/domain/@{name}": str(number) for number, name in enumerate(names, 1)}


@pytest.mark.parametrize("label", ["UTF-16", "UCS-4", "ISO-10646-UCS-2", "CP437", "IBM037", "KOI8-R"])
def test_a_document_is_utf8_whatever_it_says_itself(libvirtd, label):
    """Red when the parser heeds the label, which libvirt's does not (or `_parsed` gives it no encoding)."""
    text = SMALL.replace(b"<name>a", "<name>\xe4".encode()) % b""
    text = f'<?xml version="1.0" encoding="{label}"?>'.encode() + text
    made = libvirtd.defineXML(text.decode())
    assert inspect(Kind.DOMAIN, text).understood["name"] == made.name() == "\xe4"
    made.undefine()


@pytest.mark.parametrize(
    "content",
    [
        '<?xml version="1.0" encoding="ISO-8859-1"?><domain><name>\xe4</name></domain>'.encode("latin-1"),
        "<domain><name>\xe4</name></domain>".encode("utf-16"),
        '<?xml version="1.0" encoding="UTF-16LE"?><domain><name>\xe4</name></domain>'.encode("utf-16-le"),
    ],
    ids=["latin-1", "with a mark of its order", "without"],
)
def test_what_is_no_utf8_is_read_as_it_says(content):
    """Red when only UTF-8 is tried: libvirt would not take such a file, but it is read here."""
    assert inspect(Kind.DOMAIN, content).understood["name"] == "\xe4"


def test_what_stands_behind_a_nul_counts_for_nothing():
    """Red when a definition is read beyond its NUL: libvirt's strings end there."""
    found = inspect(Kind.DOMAIN, SMALL % b"" + b"\0</junk><a")
    assert found.understood["name"] == "a" and found.kept == []
    with pytest.raises(InvalidSpec):
        inspect(Kind.DOMAIN, b"<domain><name>a\0</name></domain>")


def test_entities_are_neither_fetched_nor_blown_up(tmp_path):
    """Red when the parser resolves entities, or loads what a DOCTYPE names."""
    secret = tmp_path / "secret"
    secret.write_text("hidden")
    doctype = f'<!DOCTYPE domain [<!ENTITY s SYSTEM "{secret.as_uri()}">]>'.encode()
    found = inspect(Kind.DOMAIN, doctype + SMALL % b"<title>&s;</title>")
    assert "hidden" not in str(found) and {"at": "/domain/title/node()", "xml": "&s;"} in found.kept
    layers = b"".join(b'<!ENTITY e%d "%s">' % (n, b"&e%d;" % (n - 1) * 10) for n in range(1, 12))
    doctype = b'<!DOCTYPE domain [<!ENTITY e0 "lol">' + layers + b"]>"
    try:
        found = inspect(Kind.DOMAIN, doctype + SMALL % b"<title>&e11;</title>")
    except InvalidSpec:
        return
    assert len(str(found)) < 10_000
