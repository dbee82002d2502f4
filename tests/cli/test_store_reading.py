"""Tools that read a store never hold its broker up."""

from pathlib import Path

from holdfast.store.reading import StoreView
from tests.support import packets
from tests.support.broker import NewBroker
from tests.support.wire import Dial, absent, contents, say


def test_a_killed_broker_starts_again_while_its_store_is_read(
    new_broker: NewBroker, dial: Dial
) -> None:
    broker = new_broker()
    absent(broker.port, "billing", "energy/#", 1)
    say(broker.port, "energy/1", b"42")
    broker.kill9()
    with StoreView(broker.data_dir) as view:
        assert sum(1 for _ in view.blocks()) == 1
        broker.start()
        say(broker.port, "energy/1", b"43")
        assert sum(1 for _ in view.blocks()) == 1  # still the same moment
    billing = dial(broker, packets.V5)
    billing.hello("billing")
    assert contents(billing.messages(2)) == [b"42", b"43"]


def test_a_broker_stops_and_starts_cleanly_while_its_store_is_read(
    new_broker: NewBroker, tmp_path: Path
) -> None:
    broker = new_broker()
    absent(broker.port, "billing", "energy/#", 1)
    with StoreView(broker.data_dir) as view:
        say(broker.port, "energy/1", *[bytes(1000)] * 2000)
        assert broker.terminate() == 0
        broker.start()
        assert sum(1 for _ in view.blocks()) == 0
    with StoreView(broker.data_dir) as view:
        assert sum(len(block.entries()) for block in view.blocks()) == 2000


def test_reading_writes_nothing_into_the_files_of_a_stopped_store(new_broker: NewBroker) -> None:
    broker = new_broker()
    absent(broker.port, "billing", "energy/#", 1)
    broker.terminate()
    before = (broker.data_dir / "holdfast.db").read_bytes()
    with StoreView(broker.data_dir) as view:
        assert view.count("sessions") == 1
    assert (broker.data_dir / "holdfast.db").read_bytes() == before
    left = {path.name: path.stat().st_size for path in broker.data_dir.iterdir()}
    assert left.get("holdfast.db-wal", 0) == 0
