"""The cache in files keeps what counts."""

from pathlib import Path

import pytest
from django.core.cache import caches

from portal.core.web.cache import FileCache


@pytest.fixture
def small(tmp_path):
    """A cache that is full with ten entries."""
    return FileCache(str(tmp_path), {"OPTIONS": {"MAX_ENTRIES": 10, "CULL_FREQUENCY": 2}})


def test_what_is_over_makes_room_before_what_still_counts(small):
    """Red when room is made by chance: wrong passwords would be forgotten, and guessed on."""
    counted = [f"wrong-passwords-{number}" for number in range(5)]
    for key in counted:
        small.set(key, [1.0], 300)
    for number in range(60):
        small.set(f"over-{number}", True, -1)
    assert [small.get(key) for key in counted] == [[1.0]] * 5


def test_a_cache_full_of_what_counts_still_makes_room(small):
    """Red when nothing but what is over is ever deleted: the folder would grow without an end."""
    for number in range(60):
        small.set(str(number), True, 300)
        assert len(list(Path(small._dir).iterdir())) <= 10
    assert small.get("59") is True


def test_a_file_that_is_no_entry_goes(small):
    """Red when a file that a power cut left in pieces ends every later write."""
    (Path(small._dir) / f"{'0' * 32}.djcache").write_bytes(b"\0" * 40)
    for number in range(12):
        small.set(str(number), True, 300)
    assert small.get("11") is True
    assert not (Path(small._dir) / f"{'0' * 32}.djcache").exists()


def test_the_portals_cache_holds_more_than_a_few_hundred():
    """Red when MAX_ENTRIES is Django's 300, or so many that each write lists the folder for long."""
    portals = caches["default"]
    assert isinstance(portals, FileCache)
    assert 1000 <= portals._max_entries <= 5000
