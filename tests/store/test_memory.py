"""What is the memory store's own: it keeps no topics without messages."""

from holdfast.store import memory
from holdfast.store.memory import MemoryStore
from holdfast.store.records import FilterSpan, ReadRequest
from tests.store.support import PLENTY, batch_of, entries, read_all


def test_topics_without_messages_are_forgotten() -> None:
    store = MemoryStore()
    for first in range(1, 20_000, 100):
        topics = [f"once/{lsn}" for lsn in range(first, first + 99)]
        store.commit(batch_of(entries(first, [*topics, "always"])))
        spans = [FilterSpan("+/+", 1, 0), FilterSpan("#", 1, 0)]
        found = read_all(store, ReadRequest(1, first, first + 100, spans, 7, PLENTY))
        assert [entry.lsn for entry in found] == list(range(first, first + 100))
        store.trim(first + 99)
    assert len(store._topics) <= memory.EMPTY_TOPICS_MAX + 100


def test_it_says_that_nothing_survives() -> None:
    assert MemoryStore().description == "memory, nothing survives a restart"
