"""A backup restored where nothing is, an upgrade and the way back, by the commands of the documents."""

from functools import partial

import pytest

from tests.e2e.portals import Visitor, environment, newer_version, remove_pool, script

pytestmark = pytest.mark.live


@pytest.fixture
def elsewhere(tmp_path):
    """The environment of a machine on which no portal was yet."""
    state = tmp_path / "elsewhere"
    state.mkdir()
    env = environment(state)
    yield env
    script("stop", env)
    remove_pool(env["GATEHOUSE_POOL"])


def test_a_restored_portal_knows_its_people_is_upgraded_and_gone_back_on(portal, elsewhere, tmp_path):
    """Red when back_up leaves the database out of its files, or scripts/run makes no backup first."""
    backup, state = tmp_path / "backup.tar.gz", tmp_path / "elsewhere"
    script("backup", portal.env, str(backup), "--no-images")
    assert "The audit chain holds" in script("restore", elsewhere, str(backup))
    newer = partial(script, root=newer_version(tmp_path / "newer"))

    said = newer("run", elsewhere, "--background")
    made = next((state / "backups").glob("before-upgrade-*.tar.gz"))
    assert f"Before migrating, the portal was backed up: {made}" in said
    assert look(portal, elsewhere)
    newer("stop", elsewhere)

    said = script("run", elsewhere, "--background", refused=True)
    assert "migrated by a newer version" in said and "accounts.9999_newer" in said
    assert "The audit chain holds" in script("restore", elsewhere, str(made), "--replace")
    script("run", elsewhere, "--background")
    assert look(portal, elsewhere)
    assert (state / "secret_key").read_text() == (portal.state / "secret_key").read_text()


def look(portal, env):
    """Sign in with a password of before, and return whether the trail tells of the restore."""
    visitor = Visitor(f"http://127.0.0.1:{env['PORT']}")
    status, _page = visitor.sign_in("auditor", portal.passwords["auditor"])
    assert status == 200
    status, trail = visitor.get("/audit/?q=portal")
    return status == 200 and "portal.restored" in trail
