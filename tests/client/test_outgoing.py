"""Messages on their way out, and the queue that they stand in."""

import random

import pytest

from holdfast.client.outgoing import (
    DONE,
    FAILED,
    PUBLISH_ID_MAX,
    STAGE_NAMES,
    STORED,
    Outgoing,
    Queue,
)
from tests.support.properties import properties


def message(seq: int = 0) -> Outgoing:
    entry = Outgoing("a", b"", 1 if seq else 0, False, None, 0, 0)
    if seq:
        entry.number(seq)
    return entry


def test_the_identifier_follows_from_the_number() -> None:
    """It is never 0, stays below those of requests, and comes again after all others have."""
    ids = [message(seq).packet_id for seq in range(1, 2 * PUBLISH_ID_MAX + 1)]
    assert min(ids) == 1 and max(ids) == PUBLISH_ID_MAX
    assert len(set(ids)) == PUBLISH_ID_MAX
    assert ids[:PUBLISH_ID_MAX] == ids[PUBLISH_ID_MAX:]
    assert message(1 << 40).packet_id == 1 + (1 << 40) % PUBLISH_ID_MAX


def test_qos_0_has_no_number() -> None:
    entry = message()
    assert (entry.seq, entry.packet_id) == (0, 0)
    with pytest.raises(AssertionError):
        entry.number(1)


def test_a_message_expires_at_its_time() -> None:
    entry = Outgoing("a", b"", 1, False, None, 1000, 0)
    assert [entry.is_expired(now_ms) for now_ms in (0, 999, 1000, 1001)] == [
        False,
        False,
        True,
        True,
    ]
    assert not Outgoing("a", b"", 1, False, None, 0, 0).is_expired(1 << 60)


def test_its_size_is_that_of_its_content() -> None:
    plain = Outgoing("topic", b"12345", 1, False, None, 0, 0)
    assert plain.size == 10
    given = properties(content_type="text", user_properties=[("k", "v")])
    assert Outgoing("topic", b"12345", 1, False, given, 0, 0).size > 10 + 6


def test_a_stage_has_a_name() -> None:
    entry = message()
    for stage, name in enumerate(STAGE_NAMES):
        entry.stage = stage
        assert entry.stage_name == name
    assert STAGE_NAMES[DONE] == "done"


def test_a_queue_does_what_a_list_would() -> None:
    """Random steps, of which many take: what is taken out leaves the memory too."""
    chance = random.Random(1)
    queue, model = Queue(), list[Outgoing]()
    for number in range(1, 30_000):
        kind = chance.randrange(10)
        if kind < 5 or number < 5_000:
            entry = message(number)
            entry.stage = FAILED if chance.randrange(5) == 0 else STORED
            queue.append(entry)
            model.append(entry)
        elif kind < 9 and model:
            queue.take()
            del model[0]
        elif kind == 9 and chance.randrange(20) == 0:
            before = [message(number + index) for index in range(chance.randrange(1, 4))]
            queue.put_before(before)
            model[:0] = before
        elif chance.randrange(50) == 0:
            queue.forget_failed()
            model = [entry for entry in model if entry.stage != FAILED]
        assert len(queue) == len(model)
        assert queue.first() is (model[0] if model else None)
        assert queue.first_seq() == next((one.seq for one in model if one.stage != FAILED), 0)
        assert len(queue._entries) <= max(2 * len(model), len(model) + 1024) + 1
    assert queue.waiting() == model
    while model:
        queue.take()
        del model[0]
    assert queue.first() is None and queue.waiting() == [] and queue._entries == []
