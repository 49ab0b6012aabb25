"""Prove what a host can run by running something; not for what it claims (`readiness`)."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from portal.drivers.errors import CallTimeout
from portal.drivers.pool import HostPool
from portal.drivers.types import Accelerator, Proof

MARGIN_SECONDS = 15.0  # to connect, to make the disk and to tidy up


@dataclass(frozen=True, slots=True)
class AcceleratorProof:
    """Whether guests boot with KVM and by emulation on a host, and what was seen, a line each."""

    kvm_works: bool
    emulation_works: bool
    evidence: str


def prove_accelerator(uri: str, *, timeout: float = 20.0) -> AcceleratorProof:
    """Boot a tiny guest both ways, each for at most `timeout` seconds.

    Ends within `timeout` and a margin of 15 s even when the host hangs: that counts as not working.
    What an interrupted proof leaves is a small pool, swept by a later one. Raises HostUnreachable.
    """
    pool = HostPool(uri, cap=2)
    try:
        with ThreadPoolExecutor(2) as threads:
            kvm, emulation = threads.map(
                lambda accelerator: _prove(pool, accelerator, timeout),
                (Accelerator.KVM, Accelerator.EMULATION),
            )
    finally:
        pool.close()
    evidence = f"KVM: {kvm.evidence}\nEmulation: {emulation.evidence}"
    return AcceleratorProof(kvm.works, emulation.works, evidence)


def _prove(pool: HostPool, accelerator: Accelerator, timeout: float) -> Proof:
    try:
        proof: Proof = pool.call("prove", accelerator, timeout, timeout=timeout + MARGIN_SECONDS)
        return proof
    except CallTimeout as error:
        return Proof(False, f"The host did not finish in time: {error.raw}")
