"""A monitoring tool reads the ``$SYS`` topics of a running broker."""

from holdfast import __version__
from tests.support.broker import NewBroker
from tests.support.clients import MosquittoSub, mosquitto_pub, mosquitto_sub
from tests.support.packets import V5, V311


def test_mosquitto_sub_reads_the_tree_and_what_changes(new_broker: NewBroker) -> None:
    broker = new_broker(settings={"sys_interval_s": 1})
    lines = mosquitto_sub(broker.port, V311, "monitor", "-t", "$SYS/#", "-v", "-C", "60")
    assert len({line.rpartition(" ")[0] for line in lines}) >= 50
    assert f"$SYS/broker/version holdfast {__version__}" in lines
    assert "$SYS/broker/retained messages/count 0" in lines

    latency = MosquittoSub(
        broker.port, V311, "latency", "$SYS/broker/store/commits/latency_ms/maximum", 1
    )
    payloads = MosquittoSub(broker.port, V311, "payloads", "$SYS/broker/publish/bytes/received", 1)
    assert payloads.messages(1) == ["0"]
    mosquitto_pub(broker.port, V5, "a", "12345", qos=1, retain=True)
    assert payloads.messages(1) == ["5"]
    # The commit of its own session is one that takes time.
    while latency.messages(1) == ["0.00"]:
        pass
    latency.leave()
    payloads.leave()


def test_without_an_interval_there_are_none(new_broker: NewBroker) -> None:
    broker = new_broker(settings={"sys_interval_s": 0})
    mosquitto_pub(broker.port, V5, "a", "behind it", retain=True)
    arguments = ["-t", "$SYS/#", "-t", "a", "-C", "1"]
    assert mosquitto_sub(broker.port, V5, "monitor", *arguments) == ["behind it"]
