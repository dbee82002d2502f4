"""What waits for the next commit."""

from holdfast.client.changes import Changes
from holdfast.client.records import ClearIncoming, MarkSent, RemoveOutgoing


def test_a_batch_takes_all_and_leaves_nothing() -> None:
    changes = Changes()
    records = [RemoveOutgoing(1), ClearIncoming()]
    changes.records.extend(records)
    changes.send(b"PUBREL", 7)
    changes.is_clearing = True
    changes.kept_from = 3
    changes.sent_below = 9
    batch = changes.take()
    assert batch.records[:2] == records
    assert isinstance(batch.records[2], MarkSent) and batch.records[2].below_seq == 9
    assert (batch.sends, batch.connection) == ([b"PUBREL"], 7)
    assert batch.is_urgent and batch.is_clearing
    assert (batch.kept_from, batch.sent_below) == (3, 9)
    after = changes.take()
    assert not (after.records or after.sends or after.stored or after.marked or after.arrived)
    assert not (after.is_urgent or after.is_clearing or after.kept_from or after.sent_below)


def test_what_was_for_an_earlier_connection_is_not_sent_over_the_next() -> None:
    changes = Changes()
    changes.send(b"old", 1)
    changes.send(b"1", 2)
    changes.send(b"2", 2)
    assert changes.take().sends == [b"1", b"2"]
