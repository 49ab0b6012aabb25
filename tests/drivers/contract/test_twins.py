"""The contract: a domain like another one."""

import uuid
from dataclasses import replace

import pytest

from portal.drivers import errors
from portal.drivers.inspection import Kind, differences, inspect
from portal.drivers.types import DomainSpec, DomainState, TwinSpec
from tests.drivers.contract.bench import Bench

MAC = "52:54:00:aa:bb:02"


def understood(text: str) -> dict[str, object]:
    return inspect(Kind.DOMAIN, text.encode()).understood


def twin(bench: Bench, spec: DomainSpec) -> TwinSpec:
    path = bench.driver.create_volume(bench.volume("twin")).path
    paths = {spec.disks[0].path: path, str(spec.seed_path): f"{bench.pool.path}/other.iso"}
    macs = {spec.nics[0].mac: MAC}
    return TwinSpec(f"{bench.prefix}-twin", str(uuid.uuid4()), "<twin>", paths, macs)


def test_a_twin_is_the_same_but_for_its_names(bench: Bench) -> None:
    """Red when anything of the other is lost, or one of its names is left."""
    driver, spec = bench.driver, bench.domain()
    driver.define(spec)
    seen = driver.definition(spec.uuid)
    dog = {"model": "i6300esb", "action": "pause"}
    extra = {"description": "two\nlines", "devices": {"watchdogs": [dog]}}
    driver.redefine(spec.uuid, extra, seen.digest)
    wanted = twin(bench, spec)
    made = driver.define_like(spec.uuid, wanted)
    assert (made.name, made.uuid, made.state) == (wanted.name, wanted.uuid, DomainState.SHUTOFF)
    assert driver.define_like(spec.uuid, wanted) == made
    first, second = (
        understood(driver.definition(one).persistent) for one in (spec.uuid, wanted.uuid)
    )
    # libvirt orders the controllers in its own way when it defines anew.
    found = {one.at for one in differences(first, second)}
    assert {at for at in found if "controllers" not in at} == {
        ("name",),
        ("uuid",),
        ("title",),
        ("devices", "disks", 0, "source", "file"),
        ("devices", "disks", 1, "source", "file"),
        ("devices", "interfaces", 0, "mac"),
    }
    assert second["title"] == "<twin>" and second["description"] == "two\nlines"
    driver.undefine(wanted.uuid)


@pytest.mark.parametrize("missing", ["paths", "macs"])
def test_twins_never_share_what_one_alone_can_have(bench: Bench, missing: str) -> None:
    """Red when a disk or a MAC that nobody named is left as it is."""
    driver, spec = bench.driver, bench.domain()
    driver.define(spec)
    wanted = replace(twin(bench, spec), **{missing: {}})
    with pytest.raises(errors.InvalidSpec):
        driver.define_like(spec.uuid, wanted)
    assert wanted.name not in {info.name for info in driver.list_domains()}


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../x"},
        {"uuid": "no"},
        {"title": "a\nb"},
        {"paths": {"/x": "x"}},
        {"macs": {"a": "b"}},
        {"ports": {"1": "2;"}},
    ],
    ids=str,
)
def test_hostile_names_are_refused(bench: Bench, change: dict[str, str]) -> None:
    driver, spec = bench.driver, bench.domain()
    driver.define(spec)
    with pytest.raises(errors.InvalidSpec):
        driver.define_like(spec.uuid, replace(twin(bench, spec), **change))


def test_names_of_others_and_a_domain_that_is_not_there(bench: Bench) -> None:
    driver, spec = bench.driver, bench.domain()
    driver.define(spec)
    wanted = twin(bench, spec)
    with pytest.raises(errors.AlreadyExists):
        driver.define_like(spec.uuid, replace(wanted, name=spec.name))
    with pytest.raises(errors.DomainNotFound):
        driver.define_like(str(uuid.uuid4()), wanted)
