"""For how long a server counts as heard."""

from time import monotonic

from gyoza.worker.contact import Contact


async def test_silence_counts_from_the_last_word_and_lasts_for_the_lease_at_least() -> None:
    contact, began = Contact(), monotonic()
    contact.heard(began, 0.2)
    assert await contact.lost(0.1) == 0.2
    assert monotonic() - began >= 0.2
    assert await contact.lost(0.4) == 0.4
    assert monotonic() - began >= 0.6


async def test_what_is_handed_over_after_a_long_silence_is_not_stopped_at_once() -> None:
    contact, began = Contact(), monotonic()
    contact.heard(began - 100, 0.2)
    assert await contact.lost(None) == 0.2
    assert monotonic() - began >= 0.2
