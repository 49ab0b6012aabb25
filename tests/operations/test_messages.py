"""The sentences of what went wrong. Not for: which code an error has."""

from portal.operations import messages


def test_what_a_sentence_names_it_is_given():
    """Red when a code whose sentence holds its own word is left out of NAMING: people saw `%(raw)s`."""
    naming = {code for code, words in messages.SENTENCES.items() if "%(raw)s" in str(words)}
    assert naming == messages.NAMING
    assert messages.sentence("card_stays", "100% of it").endswith("It says: 100% of it")
