"""Ask cloud-init about documents, inside a Debian guest that tests send this to. Not to be imported.

Reads {name: document} as JSON. Writes of each what is "refused", and which "people" it would make.
"""

import json
import sys

from cloudinit import distros, safeyaml, util
from cloudinit.config.schema import SchemaValidationError, get_schema, validate_cloudconfig_schema
from cloudinit.distros import ug_util

SYSTEM = util.read_conf("/etc/cloud/cloud.cfg")["system_info"]
SCHEMA = get_schema()


def refused(document):
    """Return what `cloud-init schema` would say, deprecations among it."""
    try:
        validate_cloudconfig_schema(document, SCHEMA, strict=True)
    except SchemaValidationError as error:
        return str(error)
    return ""


def people(document):
    distro = distros.fetch(SYSTEM["distro"])(SYSTEM["distro"], SYSTEM, None)
    return ug_util.normalize_users_groups(document, distro)[0]


answers = {}
for name, text in json.load(sys.stdin).items():
    document = safeyaml.load(text.encode())
    answers[name] = {"refused": refused(document), "people": people(document)}
json.dump(answers, sys.stdout)
