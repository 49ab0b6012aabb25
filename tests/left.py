"""`python -m tests.left`: removes what a run of the tests that was killed left on this machine's libvirt.

Run by scripts/test before the first test: a network that is still there, of another run, fails every build.
Not for: a machine on which another run goes on.
"""

from contextlib import suppress

from portal.drivers.base import HypervisorDriver
from portal.drivers.errors import DriverError
from portal.drivers.registry import driver_for
from tests.drivers.contract.bench import LIVE_URI, POOL_ROOT

#: What every domain, pool and network bridge of a test begins with.
PREFIX = "gtt"


def sweep(driver: HypervisorDriver, prefix: str = PREFIX) -> list[str]:
    """Remove domains and pools named so, and networks with such a name or bridge; return what was removed."""
    found = []
    for domain in driver.list_domains():
        if domain.name.startswith(prefix):
            driver.destroy(domain.uuid)
            driver.undefine(domain.uuid)
            found.append(domain.name)
    for pool in driver.list_pools():
        if pool.name.startswith(prefix) or pool.path.startswith(f"{POOL_ROOT}/{prefix}"):
            with suppress(DriverError):  # its folder may be gone
                driver.start_pool(pool.name)
                for volume in driver.list_volumes(pool.name):
                    driver.delete_volume(pool.name, volume.name)
            driver.remove_pool(pool.name)
            found.append(pool.name)
    for network in driver.list_networks():
        if network.name.startswith(prefix) or network.bridge.startswith(prefix):
            driver.remove_network(network.name)
            found.append(network.name)
    return found


if __name__ == "__main__":
    host = driver_for(LIVE_URI)
    for name in sweep(host):
        print(f"removed {name}, left by tests that were killed")
    host.close()
