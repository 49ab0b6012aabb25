"""Build seed images; not for what goes into the documents.

Format: cloud-init's NoCloud data source, a file system labelled `cidata`; or Anaconda's, labelled `OEMDRV`.
"""

from io import BytesIO

import pycdlib

from portal.drivers.types import SeedSpec

#: A short name has one dot, which is before its version here.
_SHORT = str.maketrans("-.", "__")


def build_iso(spec: SeedSpec) -> bytes:
    """Return an ISO 9660 image (Rock Ridge, Joliet) with the seed's documents."""
    documents = {"meta-data": spec.meta_data, "user-data": spec.user_data}
    if spec.network_config is not None:
        documents["network-config"] = spec.network_config
    label = "cidata"
    if spec.kickstart is not None:
        documents, label = {"ks.cfg": spec.kickstart}, "OEMDRV"
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=label)
    for name, text in documents.items():
        content = text.encode()
        short = "/" + name.translate(_SHORT).upper()[:8] + ".;1"
        iso.add_fp(BytesIO(content), len(content), short, rr_name=name, joliet_path=f"/{name}")
    target = BytesIO()
    iso.write_fp(target)
    iso.close()
    return target.getvalue()
