"""When a session exists, what the CONNACK says about it, and when it ends."""

import pytest

from tests.support import packets
from tests.support.broker import BrokerProcess, NewBroker
from tests.support.packets import (
    ASSIGNED_CLIENT_ID,
    CONNACK,
    DISCONNECT,
    SESSION_EXPIRY,
    V5,
    V311,
    Will,
)
from tests.support.wire import FOREVER_S, Dial, absent, contents, say


@pytest.mark.spec("MQTT5-3.1.2-5")
@pytest.mark.spec("MQTT5-3.1.2-6")
@pytest.mark.spec("MQTT5-3.2.2-3")
@pytest.mark.spec("MQTT311-3.1.2-4")
@pytest.mark.spec("MQTT311-3.2.2-2")
@pytest.mark.spec("MQTT311-3.2.2-3")
def test_an_empty_session_exists(new_broker: NewBroker, dial: Dial, name: str, level: int) -> None:
    """A session without a subscription and without a message is a session: it is there after a
    DISCONNECT, after a lost connection, and after a crash of the broker.
    """
    broker = new_broker()
    client = dial(broker, level)
    assert not client.hello(name).session_present
    client.goodbye()

    client = dial(broker, level)
    assert client.hello(name).session_present
    client.cut()

    client = dial(broker, level)
    assert client.hello(name).session_present
    broker.restart()

    client = dial(broker, level)
    assert client.hello(name).session_present


@pytest.mark.spec("MQTT5-3.1.2-4")
@pytest.mark.spec("MQTT5-3.2.2-2")
@pytest.mark.spec("MQTT311-3.1.2-6")
@pytest.mark.spec("MQTT311-3.2.2-1")
def test_a_clean_start_ends_the_old_session_for_good(
    broker: BrokerProcess, dial: Dial, name: str, level: int
) -> None:
    """A queue waits, but the client comes with a clean session. The old one is gone, and in
    3.1.1 the clean one goes with its connection.
    """
    absent(broker.port, name, name, 1, level)
    say(broker.port, name, "1", "2", level=level)
    client = dial(broker, level)
    assert not client.hello(name, clean=True).session_present
    client.subscribe(name, 1)
    client.nothing_but(name)
    client.cut()
    client = dial(broker, level)
    assert not client.hello(name).session_present
    client.subscribe(f"{name}/x", 1)
    client.nothing_but(f"{name}/x")


@pytest.mark.spec("MQTT5-4.1.0-2")
def test_session_expiry_0_ends_with_the_connection(
    broker: BrokerProcess, dial: Dial, name: str
) -> None:
    """In 5.0 a session starts clean or not, and lives on or not; these are two questions. One
    with Session Expiry Interval 0 can go on from a session, but leaves none.
    """
    absent(broker.port, name, name, 1)
    say(broker.port, name, "1")
    client = dial(broker, V5)
    assert client.hello(name, expiry_s=0).session_present
    assert contents(client.messages(1)) == [b"1"]
    client.goodbye()
    client = dial(broker, V5)
    assert not client.hello(name).session_present


@pytest.mark.spec("MQTT5-3.1.2-23")
def test_a_clean_start_may_found_a_lasting_session(
    broker: BrokerProcess, dial: Dial, name: str
) -> None:
    """Clean Start 1 with an expiry interval: empty at first, and there when the client returns."""
    client = dial(broker, V5)
    assert not client.hello(name, clean=True, expiry_s=FOREVER_S).session_present
    client.subscribe(name, 1)
    client.cut()
    say(broker.port, name, "1")
    client = dial(broker, V5)
    assert client.hello(name).session_present
    assert contents(client.messages(1)) == [b"1"]


@pytest.mark.spec("MQTT5-3.1.2-8")
@pytest.mark.spec("MQTT5-4.1.0-2")
@pytest.mark.parametrize("with_crash", [False, True], ids=["lost connection", "kill -9"])
def test_a_session_expires(new_broker: NewBroker, dial: Dial, name: str, with_crash: bool) -> None:
    """A client with a session of one second is lost. Its will, which could wait an hour, is
    published when the session ends, and then there is no session. A crash does not stop the clock.
    """
    broker = new_broker()
    absent(broker.port, f"{name}-w", f"{name}/will", 1)
    client = dial(broker, V5)
    client.hello(name, expiry_s=1, will=Will(f"{name}/will", b"lost", 1, delay_s=3600))
    client.subscribe(name, 1)
    if with_crash:
        broker.restart()
    else:
        client.cut()
    watcher = dial(broker, V5)
    assert watcher.hello(f"{name}-w").session_present
    assert contents(watcher.messages(1)) == [b"lost"]
    client = dial(broker, V5)
    assert not client.hello(name).session_present
    client.subscribe(f"{name}/x", 1)
    say(broker.port, name, "for a subscription that is gone")
    client.nothing_but(f"{name}/x")


def test_a_client_that_returns_in_time_keeps_its_session(
    broker: BrokerProcess, dial: Dial, name: str
) -> None:
    """Each return starts the Session Expiry Interval anew, with the value of its own CONNECT."""
    for expiry_s, present in ((60, False), (1, True), (FOREVER_S, True)):
        client = dial(broker, V5)
        assert client.hello(name, expiry_s=expiry_s).session_present == present
        client.cut()
    # The interval of one second ends now, here seen on another session; it was replaced in time.
    other = dial(broker, V5)
    other.hello(f"{name}-o", expiry_s=1, will=Will(f"{name}/will", b"over", 1, delay_s=3600))
    watcher = dial(broker, V5)
    watcher.hello(f"{name}-w", clean=True)
    watcher.subscribe(f"{name}/will", 1)
    other.cut()
    assert contents(watcher.messages(1)) == [b"over"]
    client = dial(broker, V5)
    assert client.hello(name).session_present


def test_disconnect_may_shorten_the_session(broker: BrokerProcess, dial: Dial, name: str) -> None:
    """A client leaves and says in its DISCONNECT that it will not come back."""
    client = dial(broker, V5)
    client.hello(name)
    client.subscribe(name, 1)
    client.send(packets.disconnect(V5, 0, {SESSION_EXPIRY: 0}))
    assert client.until_closed() == []
    client = dial(broker, V5)
    assert not client.hello(name).session_present


def test_disconnect_may_lengthen_a_session_but_not_create_one(
    broker: BrokerProcess, dial: Dial, name: str
) -> None:
    """From 60 seconds to an hour is allowed; from 0 to anything is a Protocol Error."""
    client = dial(broker, V5)
    client.hello(name, expiry_s=60)
    client.send(packets.disconnect(V5, 0, {SESSION_EXPIRY: FOREVER_S}))
    assert client.until_closed() == []
    client = dial(broker, V5)
    assert client.hello(name, expiry_s=0).session_present
    client.send(packets.disconnect(V5, 0, {SESSION_EXPIRY: 60}))
    assert [(one.kind, one.code) for one in client.until_closed()] == [(DISCONNECT, 0x82)]
    client = dial(broker, V5)
    assert not client.hello(name).session_present


@pytest.mark.spec("MQTT5-3.1.3-6")
@pytest.mark.spec("MQTT5-3.1.3-7")
@pytest.mark.spec("MQTT5-3.2.2-16")
def test_an_assigned_identifier_can_be_used_to_return(
    broker: BrokerProcess, dial: Dial, name: str
) -> None:
    """Two clients come without an identifier. Each is told its own, and returns with it."""
    ids = []
    for n in range(2):
        client = dial(broker, V5)
        connack = client.hello("", clean=True, expiry_s=FOREVER_S)
        assert not connack.session_present
        (assigned,) = connack.properties[ASSIGNED_CLIENT_ID]
        assert isinstance(assigned, str)
        assert assigned
        ids.append(assigned)
        client.subscribe(f"{name}/{n}", 1)
        client.goodbye()
    assert len(set(ids)) == 2
    say(broker.port, f"{name}/0", "0")
    say(broker.port, f"{name}/1", "1")
    for client_id, expected in zip(ids, (b"0", b"1"), strict=True):
        client = dial(broker, V5)
        connack = client.hello(client_id)
        assert connack.session_present
        assert ASSIGNED_CLIENT_ID not in connack.properties
        assert contents(client.messages(1)) == [expected]


@pytest.mark.spec("MQTT311-3.1.3-6")
@pytest.mark.spec("MQTT311-3.1.3-8")
@pytest.mark.spec("MQTT311-3.1.3-9")
@pytest.mark.spec("MQTT311-3.2.2-4")
@pytest.mark.spec("MQTT311-3.2.2-5")
def test_an_empty_identifier_in_3_1_1(broker: BrokerProcess, dial: Dial) -> None:
    """With a clean session it is accepted; a session to keep needs a name to find it by."""
    client = dial(broker, V311)
    assert not client.hello("", clean=True).session_present
    client.ping()
    client = dial(broker, V311)
    client.send(packets.connect("", V311, clean=False))
    refusal = client.expect(CONNACK)
    assert (refusal.code, refusal.session_present) == (0x02, False)
    assert client.until_closed() == []


@pytest.mark.spec("MQTT5-3.1.3-2")
@pytest.mark.spec("MQTT5-3.1.3-5")
@pytest.mark.spec("MQTT311-3.1.3-5")
@pytest.mark.parametrize(
    "client_id",
    [
        "0",
        "abcdefghijklmnopqrstuvw",
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ/with space",
        "Zähler-Ω-電",
        "x" * 300,
    ],
    ids=["short", "23 letters", "long", "beyond ASCII", "300 letters"],
)
def test_client_identifiers(broker: BrokerProcess, dial: Dial, level: int, client_id: str) -> None:
    """Each of these names a session, which is found again under exactly this name."""
    client_id = f"{client_id}{level}" if len(client_id) != 23 else f"{client_id[:-1]}{level}"
    client = dial(broker, level)
    assert not client.hello(client_id).session_present
    client.goodbye()
    client = dial(broker, level)
    assert not client.hello(client_id.swapcase() + "_").session_present
    client = dial(broker, level)
    assert client.hello(client_id).session_present
