"""Definitions are read in turns, those that were touched first, and told as they are understood."""

import pytest

from portal.drivers.errors import InvalidSpec
from portal.drivers.observations import DefinitionsSeen
from portal.drivers.reading import AGAIN, MOST, DefinitionSeen, Rounds
from portal.drivers.types import DomainDefinition
from tests.drivers.watch.hearing import collect, of

TEXT = "<domain type='test'><name>{0}</name><gizmo/></domain>"


def names(count):
    return [f"domain-{number}" for number in range(count)]


def test_all_are_read_in_turns_and_then_again():
    """Red when those that were read already keep the others waiting, or none is ever read again."""
    rounds = Rounds()
    rounds.listed(names(2 * MOST + 5))
    read = [rounds.next() for _ in range(3)]
    assert [len(found) for found in read] == [MOST, MOST, 5 + AGAIN]
    assert {uuid for found in read for uuid in found} == set(names(2 * MOST + 5))
    # From here on the oldest, a few a round.
    assert rounds.next() == read[0][AGAIN : 2 * AGAIN] and read[2][5:] == read[0][:AGAIN]


def test_what_was_touched_comes_first_and_once():
    rounds = Rounds()
    rounds.listed(names(10))
    rounds.next()
    for _ in range(2):
        rounds.touched("domain-7")
    rounds.touched("new")
    assert rounds.next()[:2] == ["domain-7", "new"]
    assert "domain-7" not in rounds.next()


def test_what_is_gone_is_read_no_more():
    """Red when listed() keeps what was touched, or read, of domains that the host has no more."""
    rounds = Rounds()
    rounds.listed(names(3))
    rounds.touched("domain-1")
    rounds.listed(["domain-2"])
    assert rounds.next() == ["domain-2"]
    rounds.listed([])
    assert rounds.next() == []


def test_a_definition_is_told_as_it_is_understood():
    seen = DefinitionSeen.of(DomainDefinition(TEXT.format("one"), TEXT.format("two")))
    assert (seen.persistent["name"], seen.running["name"], seen.kept) == ("one", "two", 1)
    assert len(seen.digest) == 64
    passing = DefinitionSeen.of(DomainDefinition("", TEXT.format("two")))
    assert (passing.persistent, passing.kept) == (None, 0)
    assert DefinitionSeen.of(DomainDefinition(TEXT.format("one"))).running is None
    with pytest.raises(InvalidSpec):
        DefinitionSeen.of(DomainDefinition("<domain>"))


@pytest.mark.live
def test_a_host_tells_its_definitions_and_those_that_others_change(watching, daemon):
    """Red when the thread that reads them is not started, or hears of no change."""
    import libvirt

    watch, uri = watching(daemon.uri()), daemon.uri()

    def told(name, heard):
        return [
            seen.persistent
            for message in of(heard[uri], DefinitionsSeen)
            for seen in message.definitions.values()
            if seen.persistent and seen.persistent["name"] == name
        ]

    heard = collect(watch, lambda heard: told("test", heard))
    assert told("test", heard)[0]["devices"]["disks"][0]["target"]["dev"] == "vda"
    connection = libvirt.open(uri)
    made = connection.defineXML(
        TEXT.format("later").replace("<gizmo/>", "<memory>1024</memory><os><type>hvm</type></os>")
    )
    heard = collect(watch, lambda heard: told("later", heard))
    connection.defineXML(made.XMLDesc().replace("<memory", "<title>changed</title><memory"))
    collect(watch, lambda heard: any("title" in found for found in told("later", heard)))
    connection.close()
