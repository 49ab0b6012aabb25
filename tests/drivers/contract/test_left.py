"""What a run of the tests leaves when it is killed goes before the next one, and nothing else does."""

from dataclasses import replace

from tests.left import sweep

ELSEWHERE = {"address": "10.213.76.1", "dhcp_start": "10.213.76.10", "dhcp_end": "10.213.76.20"}


def test_what_carries_the_prefix_goes_from_the_host(bench):
    """Red when sweep leaves a domain that runs, a pool with a volume, or a network with such a bridge."""
    driver, pool = bench.driver, bench.pool.name
    domain = bench.domain()
    driver.define(domain)
    driver.start(domain.uuid)
    driver.remove_network(bench.network.name)
    driver.ensure_network(replace(bench.network, name=f"is-{bench.prefix}", bridge=bench.prefix))
    others = replace(bench.network, name=f"not-{bench.prefix}", uuid=domain.uuid, **ELSEWHERE)
    driver.ensure_network(others)
    try:
        assert set(sweep(driver, bench.prefix)) == {domain.name, pool, f"is-{bench.prefix}"}
        assert domain.name not in [one.name for one in driver.list_domains()]
        assert pool not in [one.name for one in driver.list_pools()]
        left = [one.name for one in driver.list_networks() if bench.prefix in one.name]
        assert left == [others.name]
        assert sweep(driver, bench.prefix) == []
        driver.ensure_pool(bench.pool)
        assert driver.list_volumes(pool) == ()
    finally:
        driver.remove_network(others.name)
        driver.ensure_pool(bench.pool)
