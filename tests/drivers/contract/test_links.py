"""The contract: files whose folder has several names, since one of them is a symbolic link."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from portal.drivers.fake import FakeDriver
from portal.drivers.types import DiskSpec, DomainSpec
from tests.drivers.contract.bench import POOL_ROOT, Bench


@pytest.fixture
def link(bench: Bench) -> Iterator[str]:
    """Another name of the pool's folder."""
    made = f"{POOL_ROOT}/{bench.prefix}-link"
    if isinstance(bench.driver, FakeDriver):
        bench.driver.links[made] = bench.pool.path
        yield made
        return
    os.symlink(bench.pool.path, made)
    yield made
    Path(made).unlink()


@pytest.fixture
def linked(bench: Bench, link: str) -> DomainSpec:
    """A domain whose disk is named by the link."""
    spec = bench.domain()
    name = spec.disks[0].path.rpartition("/")[2]
    made = replace(spec, disks=(DiskSpec(f"{link}/{name}"),), seed_path=None)
    bench.driver.define(made)
    return made


def test_who_names_a_disk_by_a_link_uses_it(bench: Bench, linked: DomainSpec) -> None:
    """Red when paths are compared as they are written: the disk would be nobody's, and be deleted."""
    driver, name = bench.driver, linked.disks[0].path.rpartition("/")[2]
    assert driver.volume_users(bench.pool.name, name) == (linked.name,)
    assert driver.pool_users(bench.pool.name) == (linked.name,)


def test_a_file_of_that_name_in_another_folder_is_another(bench: Bench, linked: DomainSpec) -> None:
    """Red when names alone are compared."""
    driver, name = bench.driver, linked.disks[0].path.rpartition("/")[2]
    driver.undefine(linked.uuid)
    driver.define(replace(linked, disks=(DiskSpec(f"{POOL_ROOT}/{bench.prefix}-none/{name}"),)))
    assert driver.volume_users(bench.pool.name, name) == ()


def test_paths_are_told_without_the_links_of_their_folders(bench: Bench, link: str) -> None:
    own = (f"{link}/x", f"{bench.pool.path}/x", f"{POOL_ROOT}/{bench.prefix}-none/x", "x", "/x", "")
    told = bench.driver.canonical(own)
    real = os.path.realpath(bench.pool.path)
    assert told == dict.fromkeys(own[:2], f"{real}/x") | {path: path for path in own[2:]}
