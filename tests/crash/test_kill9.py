"""``kill -9`` of the real server under load, again and again: what was acknowledged is there.

What was acknowledged at QoS 1 arrives at least once, each QoS 2 message exactly once, in the order
of its publisher, and every CONNACK tells the truth about the session. The load is random, by a seed
that a failure prints. HOLDFAST_CRASH_ROUNDS says how many kills, HOLDFAST_CRASH_SEED repeats one.
"""

import asyncio
import itertools
import os
import random
import secrets
from typing import Final

import pytest

from tests.crash.load import Broken, Client, Passer, Publisher, Subscriber, World
from tests.support.broker import BrokerProcess, NewBroker
from tests.support.packets import V5, V311
from tests.support.wire import Wire, say

ROUNDS: Final = int(os.environ.get("HOLDFAST_CRASH_ROUNDS", "20"))
SEED: Final = int(os.environ.get("HOLDFAST_CRASH_SEED", secrets.randbelow(1 << 32)))
PATIENCE_S: Final = 40 + 5 * ROUNDS  # an upper bound only; a round takes about a second
END_TOPIC: Final = "load/end/q1"
MARKER: Final = b"nothing comes before this"


@pytest.mark.spec("MQTT5-4.3.3-10")
@pytest.mark.spec("MQTT5-4.4.0-1")
@pytest.mark.spec("MQTT5-4.5.0-1")
@pytest.mark.spec("MQTT5-4.6.0-5")
@pytest.mark.spec("MQTT311-4.3.3-2")
@pytest.mark.spec("MQTT311-4.4.0-1")
@pytest.mark.spec("MQTT311-4.5.0-1")
@pytest.mark.spec("MQTT311-4.6.0-6")
@pytest.mark.timeout(PATIENCE_S + 30)
def test_nothing_acknowledged_is_lost_and_nothing_comes_twice(new_broker: NewBroker) -> None:
    """Four publishers and six durable subscribers, of both versions, live through the kills; then
    everything is drained, and what each subscriber got is compared with what was promised.
    """
    print(f"to repeat the load: HOLDFAST_CRASH_SEED={SEED} HOLDFAST_CRASH_ROUNDS={ROUNDS}")
    broker = new_broker()
    world = World(SEED)
    subscribers = [
        Subscriber(world, "steady", V5, stay_max=0),
        Subscriber(world, "restless", V5, stay_max=60, pause_max=60),
        Subscriber(world, "old", V311),
        Subscriber(world, "narrow", V5, receive_maximum=5, lag=1),
        Subscriber(world, "once", V311, qos=1, lag=8),
        Subscriber(world, "sleeper", V5, stay_max=1, pause_max=1 << 60),
    ]
    publishers = [Publisher(world, f"p{n}", (V311, V5)[n % 2]) for n in range(4)]
    passers = [Passer(world, "passer-old", V311), Passer(world, "passer", V5)]
    asyncio.run(run(world, broker, publishers, subscribers, passers))

    sent = {topic: number for topic, number in world.last.items() if topic != END_TOPIC}
    assert len(sent) == 8, "each publisher publishes at QoS 1 and 2"
    say(broker.port, END_TOPIC, MARKER, qos=2)
    for subscriber in subscribers:
        check(world, subscriber, sent)
        nothing_more(broker, subscriber)
    print(f"{sum(sent.values())} messages, {ROUNDS} kills")


async def run(
    world: World,
    broker: BrokerProcess,
    publishers: list[Publisher],
    subscribers: list[Subscriber],
    passers: list[Passer],
) -> None:
    world.port = broker.port
    world.is_up.set()
    try:
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            for client in (*subscribers, *passers):
                group.create_task(client.run(), name=client.name)
            for subscriber in subscribers:
                await subscriber.is_subscribed.wait()
            publishing = [group.create_task(one.run(), name=one.name) for one in publishers]
            await kill_again_and_again(world, broker)
            world.end()
            await asyncio.gather(*publishing)
            world.last[END_TOPIC] = 1
            world.is_complete = True
            # It also wakes those whose last message came before they knew that it was the last.
            await asyncio.to_thread(say, broker.port, END_TOPIC, "end q1 1", qos=1)
    except TimeoutError:
        clients: list[Client] = [*publishers, *subscribers, *passers]
        stuck = [client for client in clients if not client.is_done]
        reports = "\n".join(world.recent(client.name) for client in stuck)
        raise Broken(f"not finished: {[client.name for client in stuck]}\n{reports}") from None


async def kill_again_and_again(world: World, broker: BrokerProcess) -> None:
    chance = random.Random(SEED)
    for number in range(1, ROUNDS + 1):
        # Often in full swing, and sometimes while sessions are just being resumed.
        full_swing = chance.random() < 0.7
        await world.passed(chance.randint(500, 3000) if full_swing else chance.randint(1, 60))
        world.is_up.clear()
        broker.kill9()
        world.note("broker", f"kill -9, the {number}. of {ROUNDS}")
        await asyncio.to_thread(broker.start)
        world.note("broker", "ready again")
        world.is_up.set()
    await world.passed(1000)


def check(world: World, subscriber: Subscriber, sent: dict[str, int]) -> None:
    """Compare what one subscriber got with what was promised; every message was acknowledged."""
    assert {*subscriber.got} == {*sent, END_TOPIC}
    for topic, count in sent.items():
        got = subscriber.got[topic]
        promised = range(1, count + 1)
        exactly_once = topic.endswith("q2") and subscriber.qos == 2
        # dict.fromkeys keeps the order of first arrivals.
        arrivals = got if exactly_once else [*dict.fromkeys(got)]
        if arrivals == [*promised]:
            continue
        missing = sorted(set(promised) - set(got))
        double = sorted(number for number in set(got) if got.count(number) > 1)
        early = [b for a, b in itertools.pairwise(arrivals) if b < a]
        suspects = missing or (double if exactly_once else []) or early
        _, publisher, kind = topic.split("/")
        raise Broken(
            f"{subscriber.name}, {topic}: {count} promised, {len(missing)} missing"
            f" {missing[:10]}, {len(double)} more than once {double[:10]}, out of order"
            f" {early[:10]}\n" + world.history(f"{publisher} {kind} {suspects[0]}".encode())
        )


def nothing_more(broker: BrokerProcess, subscriber: Subscriber) -> None:
    """Its session is still there, and there is nothing left in it but the marker."""
    with Wire(broker.port, subscriber.level) as wire:
        assert wire.hello(subscriber.name).session_present
        found = wire.until(MARKER)
        assert len(found) == 1, [str(one) for one in found]
        wire.goodbye()
