"""A backup of a portal that runs, restored by the README's command where nothing is, and run there."""

import pytest

from tests.e2e.portals import Visitor, environment, remove_pool, script

pytestmark = pytest.mark.live


def test_a_restored_portal_knows_its_people_and_its_trail(portal, tmp_path):
    """Red when back_up leaves the database out of its files."""
    backup = tmp_path / "backup.tar.gz"
    script("backup", portal.env, str(backup), "--no-images")
    state = tmp_path / "elsewhere"
    state.mkdir()
    env = environment(state)
    try:
        assert "The audit chain holds" in script("restore", env, str(backup))
        script("run", env, "--background")
        visitor = Visitor(f"http://127.0.0.1:{env['PORT']}")
        status, _page = visitor.sign_in("auditor", portal.passwords["auditor"])
        assert status == 200
        status, trail = visitor.get("/audit/?q=portal")
        assert status == 200 and "portal.restored" in trail
        assert (state / "secret_key").read_text() == (portal.state / "secret_key").read_text()
    finally:
        script("stop", env)
        remove_pool(env["GATEHOUSE_POOL"])
