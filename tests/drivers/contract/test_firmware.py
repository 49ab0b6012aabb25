"""The contract: what a domain has on its host for its firmware and TPM, which a fake does not have."""

import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest

from portal.drivers.inspection import Kind, inspect
from portal.drivers.types import FRESH, LEFT, DomainState, SeedSpec, TwinSpec
from tests.drivers.contract.bench import Bench

pytestmark = [pytest.mark.live, pytest.mark.parametrize("bench", ["libvirt"], indirect=True)]

UEFI = {
    "firmware": "efi",
    "firmware_features": [
        {"name": "enrolled-keys", "enabled": False},
        {"name": "secure-boot", "enabled": False},
    ],
}
BIOS = {"firmware": None, "firmware_features": None}
TPM = {"model": "tpm-crb", "backend": "emulator", "version": "2.0"}


def change(bench: Bench, uuid: str, patch: dict[str, Any]) -> None:
    bench.driver.redefine(uuid, patch, bench.driver.definition(uuid).digest)


def on_host(bench: Bench, uuid: str) -> list[Path]:
    """Return what a domain has in the folders of its firmware and of its TPM."""
    firmware = Path("/var/lib/libvirt/qemu/nvram").glob(f"{bench.prefix}*")
    tpm = [path for path in [Path("/var/lib/libvirt/swtpm") / uuid] if path.exists()]
    return [*firmware, *tpm]


@pytest.fixture
def uefi(bench: Bench) -> str:
    """A domain with UEFI and a TPM that was started once, and is off."""
    spec = bench.domain()
    bench.driver.define(spec)
    change(bench, spec.uuid, {"os": UEFI, "devices": {"tpms": [TPM]}})
    bench.driver.start(spec.uuid)
    assert "pflash" in bench.driver.definition(spec.uuid).running
    bench.driver.destroy(spec.uuid)
    assert len(on_host(bench, spec.uuid)) == 2
    return spec.uuid


def test_a_domain_with_firmware_and_tpm_leaves_nothing(bench: Bench, uefi: str) -> None:
    """Red when undefine() keeps the memory of a firmware."""
    bench.driver.undefine(uefi)
    assert on_host(bench, uefi) == []


def test_what_an_earlier_definition_had_goes_too(bench: Bench, uefi: str) -> None:
    """Red when undefine() does not look for traces."""
    traces = {"firmware": LEFT, "tpm": LEFT}
    change(bench, uefi, {"os": BIOS, "devices": {"tpms": [None]}, "traces": traces})
    bench.driver.start(uefi)
    assert "pflash" not in bench.driver.definition(uefi).running
    bench.driver.destroy(uefi)
    assert len(on_host(bench, uefi)) == 2
    bench.driver.undefine(uefi)
    assert on_host(bench, uefi) == []


def test_a_firmware_forgets_what_another_one_kept(bench: Bench, uefi: str) -> None:
    """Red when start() does not let the firmware begin anew, or does it at each start."""
    [memory] = [path for path in on_host(bench, uefi) if path.suffix == ".fd"]
    kept = memory.read_bytes()
    memory.write_bytes(bytes(len(kept)))
    change(bench, uefi, {"traces": {"firmware": FRESH}})
    bench.driver.start(uefi)
    bench.driver.destroy(uefi)
    assert memory.read_bytes()[:4096] == kept[:4096]
    marked = kept[:-1] + bytes([kept[-1] ^ 1])
    memory.write_bytes(marked)
    bench.driver.start(uefi)
    bench.driver.destroy(uefi)
    assert memory.read_bytes()[-1] == marked[-1]


def test_what_is_restored_does_not_begin_anew(bench: Bench, uefi: str) -> None:
    """Red when _create() resets the firmware of what is saved, or takes the trace that says so."""
    driver = bench.driver
    driver.start(uefi)
    change(bench, uefi, {"traces": {"firmware": FRESH}})
    driver.save(uefi)
    driver.start(uefi)
    assert driver.domain_info(uefi).state is DomainState.RUNNING
    told = inspect(Kind.DOMAIN, driver.definition(uefi).persistent.encode()).understood
    assert told["traces"]["firmware"] == FRESH


def test_a_twin_starts_with_firmware_that_libvirt_does_not_know(bench: Bench) -> None:
    """Red when _firmware of twins takes the <nvram> away with its template."""
    driver, spec, folder = bench.driver, bench.domain(), Path(bench.pool.path)
    for kind in ("CODE", "VARS"):
        shutil.copy(f"/usr/share/OVMF/OVMF_{kind}_4M.fd", folder / f"{bench.prefix}-{kind}.fd")
    code, template = (str(folder / f"{bench.prefix}-{kind}.fd") for kind in ("CODE", "VARS"))
    driver.define(spec)
    by_hand = {"loader": code, "loader_type": "pflash", "loader_readonly": True, "nvram_template": template}
    change(bench, spec.uuid, {"os": by_hand})
    path = driver.create_volume(bench.volume("twin")).path
    driver.write_seed(SeedSpec(bench.pool.name, f"{bench.prefix}-other.iso", "a", "b"))
    paths = {spec.disks[0].path: path, str(spec.seed_path): f"{folder}/{bench.prefix}-other.iso"}
    macs = {spec.nics[0].mac: "52:54:00:aa:bb:02"}
    made = driver.define_like(
        spec.uuid, TwinSpec(f"{bench.prefix}-twin", str(uuid.uuid4()), "", paths, macs)
    )
    driver.start(made.uuid)
    driver.destroy(made.uuid)
    assert [file.name for file in on_host(bench, made.uuid)] == [f"{made.name}_VARS.fd"]
    for one in (made.uuid, spec.uuid):
        driver.undefine(one)
    assert on_host(bench, made.uuid) == []
