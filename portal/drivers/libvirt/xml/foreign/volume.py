"""What the portal understands of a storage <volume> that somebody made (libvirt's formatstorage.html)."""

from portal.drivers.libvirt.xml.foreign.fields import Attr, Fields, Names, One, Size, Text

VOLUME: Fields = {
    "type": Attr("", "type"),
    "name": Text("name"),
    "key": Text("key"),
    "capacity_bytes": Size("capacity", "bytes"),
    "allocation_bytes": Size("allocation", "bytes"),
    "physical_bytes": Size("physical", "bytes"),
    "target": One(
        "target",
        {
            "path": Text("path"),
            "format": Attr("format", "type"),
            "compat": Text("compat"),
            "features": Names("features"),
            "encryption": Attr("encryption", "format"),
            "permissions": One(
                "permissions", {name: Text(name) for name in ("mode", "owner", "group", "label")}
            ),
        },
    ),
    "backing": One("backingStore", {"path": Text("path"), "format": Attr("format", "type")}),
}
