"""Applications with the real client, the processes they run in, and the machines under them."""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Literal

from holdfast.client.client import Client
from holdfast.client.incoming import ReceivedMessage
from holdfast.client.options import OutboxLimits, Reconnect
from holdfast.client.receipt import Receipt
from holdfast.client.subscription import Stream
from holdfast.errors import ConnectionLost, LimitExceeded, Refused, StoreError
from tests.client.outbox_support import OutboxModel
from tests.client.sim.disk import payloads
from tests.client.sim.ledger import FREE, NEVER, OPEN, PROMISED, Given
from tests.client.sim.loop import OWNER
from tests.sim.taps import Violation

if TYPE_CHECKING:
    from tests.client.sim.simulation import Simulation

PROCESS: contextvars.ContextVar["Process"] = contextvars.ContextVar("process")


class Device:
    """A machine: its disk survives its processes. ``kind`` says what its application does."""

    def __init__(self, simulation: "Simulation", name: str, kind: "Kind") -> None:
        self.simulation = simulation
        self.name = name
        self.kind = kind
        self.version = kind.version
        self.disk = OutboxModel()
        self.process: Process | None = None
        self.kills = 0
        self.dropped = 0  # by the policy
        self.left = kind.messages
        self.written: set[bytes] = set()  # messages of QoS 1 and 2 that were sent
        self.starts = 0
        # Of the subscriber: what it has processed, with manual_ack in its own database.
        self.deliveries: dict[int, Given] = {}

    def lose_disk(self) -> None:
        """Somebody has removed the outbox file, and with it what was promised."""
        self.simulation.say(f"{self.name}: its file is gone")
        self.disk = OutboxModel()
        self.simulation.may_hold = True
        self.deliveries.clear()
        for origin, givens in self.simulation.ledger.given.items():
            for given in givens:
                if origin == self.name:
                    given.free()
                else:
                    given.sessions_lost += 1  # it may come again

    def start(self) -> None:
        if self.process is None:
            self.starts += 1
            self.process = Process(self, self.starts)
            self.process.begin()


class Kind:
    """What an application does."""

    def __init__(
        self,
        *,
        version: int,
        publishes: bool,
        subscribes_to: str,
        has_outbox: bool,
        manual_ack: bool,
        messages: int,
        messages_max: int,
        policy: Literal["wait", "refuse", "drop-oldest"],
        in_flight_max: int,
        receive_maximum: int,
        lives: bool,
    ) -> None:
        self.version = version
        self.publishes = publishes
        self.subscribes_to = subscribes_to
        self.has_outbox = has_outbox
        self.manual_ack = manual_ack
        self.messages = messages
        self.messages_max = messages_max
        self.policy: Literal["wait", "refuse", "drop-oldest"] = policy
        self.in_flight_max = in_flight_max
        self.receive_maximum = receive_maximum
        self.lives = lives  # it is never killed


class Process:
    """One life of an application. When it dies, nothing that it does has an effect any more."""

    def __init__(self, device: Device, number: int) -> None:
        self.device = device
        self.simulation = device.simulation
        self.name = device.name
        self.number = number
        self.is_dead = False
        self.tasks: set[asyncio.Task[Any]] = set()
        self.client: Client | None = None
        self.stream: Stream | None = None
        chance, plan = self.simulation.random, self.simulation.plan
        may_die = self.simulation.is_rough and not device.kind.lives
        self._points = chance.randint(1, plan.points) if may_die else -1
        self._stopped = asyncio.Event()
        self._context = contextvars.Context()
        self._context.run(OWNER.set, self.tasks)
        self._context.run(PROCESS.set, self)
        self._held: list[ReceivedMessage] = []

    # --- life and death

    def run(self, action: Callable[..., Any], *arguments: Any) -> Any:
        """Do this in the name of the process."""
        return self._context.copy().run(action, *arguments)

    def begin(self) -> None:
        self.simulation.say(f"{self.name}: starts")
        self.run(self.simulation.loop.create_task, self._main())
        if self.simulation.is_rough and self.simulation.random.random() < 0.3:
            self.simulation.after(self.simulation.random.uniform(0, 5), self.stop)

    def point(self, what: str) -> None:
        """A moment at which the process may be killed."""
        if self._points < 0 or self.is_dead:
            return
        self._points -= 1
        if self._points < 0 and self.simulation.is_rough:
            self.die(f"kill -9 {what}")

    def may_die(self, when: str) -> None:
        """A good moment to be killed."""
        if self.simulation.is_rough and not self.device.kind.lives:
            self.die(f"kill -9 {when}")

    def die(self, why: str) -> None:
        if self.is_dead:
            return
        self.simulation.say(f"{self.name}: {why}")
        self.is_dead = True
        self.count_dropped()
        device = self.device
        device.kills += 1
        device.process = None
        for given in self.simulation.ledger.given.get(self.name, []):
            if given.state == OPEN or (given.qos == 0 and given.state == PROMISED):
                given.free()
        if self.simulation.random.random() < self.simulation.plan.disk_losses:
            device.lose_disk()
        self.simulation.process_died(self)
        self.simulation.after(0, self.bury)
        self.simulation.after(self.simulation.random.uniform(0, 2), device.start)

    def count_dropped(self) -> None:
        engine = None if self.client is None else self.client._engine_
        if engine is not None and self.device.kind.policy == "drop-oldest":
            self.device.dropped += engine.sending.dropped

    def bury(self) -> None:
        for task in list(self.tasks):
            task.cancel()

    def stop(self) -> None:
        """Ask the application to end in order."""
        if not self.is_dead and not self.device.kind.lives:
            self._stopped.set()

    # --- the application

    async def _main(self) -> None:
        kind, simulation = self.device.kind, self.simulation
        while True:
            self.client = Client(
                "mqtt://server",
                client_id=self.name,
                outbox="outbox.db" if kind.has_outbox else None,
                version="5.0" if kind.version == 5 else "3.1.1",
                keep_alive_s=5,
                receive_maximum=kind.receive_maximum,
                in_flight_max=kind.in_flight_max,
                manual_ack=kind.manual_ack,
                outbox_limits=OutboxLimits(messages_max=kind.messages_max, policy=kind.policy),
                reconnect=Reconnect(delay_min_s=0.1, delay_max_s=1),
                connect_timeout_s=3,
                close_timeout_s=3,
            )
            try:
                await self.client.open()
                break
            except (ConnectionLost, Refused):
                await asyncio.sleep(simulation.random.uniform(0, 1))
            except StoreError:
                self.die("has no disk")
                return
        jobs: list[Coroutine[Any, Any, None]] = []
        if kind.publishes:
            jobs += [self._publish_all(self.client), self._wait_now_and_then(self.client)]
        if kind.subscribes_to:
            jobs.append(self._take_all(self.client))
        tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(job) for job in jobs]
        tasks.append(asyncio.ensure_future(self._stopped.wait()))
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        while not self._stopped.is_set():
            for task in done:
                task.result()
            tasks = [task for task in tasks if not task.done()]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        simulation.say(f"{self.name}: ends in order")
        for task in list(self.tasks):
            if task is not asyncio.current_task() and not task.get_name().startswith("holdfast"):
                task.cancel()
        await asyncio.sleep(0)
        try:
            await self.client.close()
        except StoreError:
            self.die("its disk has failed at the end")
            return
        self._ended_in_order()

    def _ended_in_order(self) -> None:
        if self.is_dead:
            return
        self.is_dead = True
        self.count_dropped()
        device = self.device
        device.process = None
        device.kills += 1  # what was handed over when ``__anext__`` was cancelled is gone
        if device.disk.client_id:
            self.simulation.check_closed(device)
        for given in self.simulation.ledger.given.get(self.name, []):
            if given.state == OPEN or given.qos == 0:
                given.free()
        self.simulation.after(self.simulation.random.uniform(0, 1), device.start)

    # --- publishing

    async def _publish_all(self, client: Client) -> None:
        chance, device = self.simulation.random, self.device
        running: set[asyncio.Task[None]] = set()
        while device.left > 0 and not self.is_dead:
            await asyncio.sleep(chance.choice([0, 0, 0.01, 0.1, 0.3]))
            for _ in range(min(device.left, chance.choice([1, 1, 2, 5, 12]))):
                device.left -= 1
                qos = chance.choice([0, 1, 1, 2, 2, 2])
                if chance.random() < 0.3:
                    self._publish_nowait(client, qos)
                else:
                    timeout_s = chance.choice([None, None, None, 0, 0.005, 0.02])
                    task = asyncio.ensure_future(self._publish(client, qos, timeout_s))
                    running.add(task)
            if chance.random() < 0.3 and running:
                await asyncio.wait(running)
                for task in running:
                    task.result()
                running.clear()
        if running:
            await asyncio.wait(running)
            for task in running:
                task.result()

    def _publish_nowait(self, client: Client, qos: int) -> None:
        if self.is_dead:
            return
        given = self.simulation.ledger.give(self.name, qos)
        self.simulation.say(f"{self.name}: publishes {given}, nowait")
        try:
            receipt = client.publish_nowait(given.topic, given.payload, qos)
        except LimitExceeded:
            given.state = NEVER
            return
        except StoreError:
            given.free()
            given.was_refused = True
            return
        if not self.device.kind.has_outbox or qos == 0:
            given.state = PROMISED
        self._watch(given, receipt)

    async def _publish(self, client: Client, qos: int, timeout_s: float | None) -> None:
        givens: list[Given] = []
        try:
            receipt = await asyncio.wait_for(self._publish_one(client, qos, givens), timeout_s)
        except TimeoutError:
            for given in givens:
                given.free()
                # What is given up later, by nobody's fault, is told to nobody.
                may_be_dropped = self.device.kind.policy == "drop-oldest"
                given.was_refused = may_be_dropped or self.simulation.plan.commit_fails > 0
            return
        except LimitExceeded:
            givens[0].state = NEVER
            return
        except (StoreError, ConnectionLost):
            for given in givens:
                given.free()
                given.was_refused = True
            return
        if self.is_dead:
            return
        given = givens[0]
        self.point("after publish")
        self._watch(given, receipt)
        if given.state == OPEN:
            given.state = PROMISED
        if qos > 0 and self.device.kind.has_outbox:
            self._check_stored(given, receipt)
        if self.simulation.random.random() < 0.5:
            await self._see_through(given, receipt)

    async def _publish_one(self, client: Client, qos: int, givens: list[Given]) -> Receipt:
        if self.is_dead:
            raise StoreError("the process is dead")
        given = self.simulation.ledger.give(self.name, qos)
        self.simulation.say(f"{self.name}: publishes {given}")
        givens.append(given)
        return await client.publish(given.topic, given.payload, qos)

    def _check_stored(self, given: Given, receipt: Receipt) -> None:
        """A publish that has returned is on the disk, or further."""
        if self.is_dead or given.came or receipt.is_done:
            return
        if given.payload in payloads(self.device.disk).values():
            return
        raise Violation("not stored", f"{given}, publish has returned", self.name)

    def _watch(self, given: Given, receipt: Receipt) -> None:
        receipt.add_done_callback(lambda done: self._is_over(given, done))

    def _is_over(self, given: Given, receipt: Receipt) -> None:
        """The end of a message, as the client tells it."""
        if self.is_dead:
            return
        if receipt.stage == "failed":
            given.free()
            given.was_refused = True
        elif receipt.stage == "done" and given.qos > 0:
            if given.came == 0 and given.state != FREE and not self.simulation.has_broker:
                raise Violation("done and not there", str(given), self.name)
            if given.state == OPEN:
                given.state = PROMISED
        if receipt.stage == "done" and given.qos == 0:
            given.free()

    async def _see_through(self, given: Given, receipt: Receipt) -> None:
        """Wait for the end, or lose patience."""
        timeout_s = self.simulation.random.choice([None, 0.01, 0.5])
        try:
            await asyncio.wait_for(self._end_of(receipt), timeout_s)
        except TimeoutError:
            return
        except (Refused, LimitExceeded, ConnectionLost, StoreError):
            if receipt.stage == "failed":
                given.free()
            return
        if not self.is_dead and not receipt.is_done:
            raise Violation("not done", f"{given} is {receipt.stage}", self.name)

    async def _end_of(self, receipt: Receipt) -> None:
        await receipt

    async def _wait_now_and_then(self, client: Client) -> None:
        chance = self.simulation.random
        while not self.is_dead and self.simulation.is_rough:
            await asyncio.sleep(chance.uniform(0, 3))
            try:
                await client.drain(chance.choice([0, 0.01, 1]))
            except TimeoutError:
                continue
            except ConnectionLost:
                return

    # --- subscribing

    async def _take_all(self, client: Client) -> None:
        chance, kind = self.simulation.random, self.device.kind
        stream = client.subscribe(kind.subscribes_to, qos=2)
        self.stream = stream
        while not self.is_dead:
            timeout_s = chance.choice([None, None, 0, 0.005, 0.05]) if kind.has_outbox else None
            try:
                message = await asyncio.wait_for(anext(stream), timeout_s)
            except TimeoutError:
                continue
            except StopAsyncIteration:
                return
            except StoreError:
                self.die("its disk has failed")
                return
            except Refused:
                self.die("was refused")
                return
            if self.is_dead:
                return
            self.point("when a message is handed over")
            if self.is_dead:
                return
            self._process(message)
            self.point("when a message is processed")
            if chance.random() < 0.3:
                await asyncio.sleep(chance.choice([0, 0.01, 0.2]))
            if kind.manual_ack:
                await self._acknowledge(message)

    async def _acknowledge(self, message: ReceivedMessage) -> None:
        """Soon or later, in any order, waiting for it or not."""
        chance = self.simulation.random
        self._held.append(message)
        while self._held and (len(self._held) > 3 or chance.random() < 0.6):
            one = self._held.pop(chance.randrange(len(self._held)))
            self.point("before ack")
            waiter = one.ack()
            if chance.random() < 0.5:
                try:
                    await waiter
                except StoreError:
                    self.die("its disk has failed")
                    return
                self._check_marked(one)
            elif isinstance(waiter, asyncio.Future):
                waiter.add_done_callback(_retrieve)

    def _check_marked(self, message: ReceivedMessage) -> None:
        """An ack that has returned is on the disk: the message does not come again."""
        if self.is_dead or message.qos != 2 or not self.device.kind.has_outbox:
            return
        found = self.device.disk.incoming.get(message.packet_id)
        if found is not None and found[0] == message.delivery_id and not found[1]:
            raise Violation("not marked", f"#{message.packet_id}, ack has returned", self.name)

    def calm(self) -> None:
        """From now on all that was taken is acknowledged."""
        held, self._held = self._held, []
        for message in held:
            waiter = message.ack()
            if isinstance(waiter, asyncio.Future):
                waiter.add_done_callback(_retrieve)

    def _process(self, message: ReceivedMessage) -> None:
        """The application does what the message wants; with manual_ack in one transaction."""
        device = self.device
        given = self.simulation.ledger.find(message.payload)
        self.simulation.say(f"{self.name}: has {given}, delivery {message.delivery_id}")
        if message.qos != given.qos or message.topic != given.topic:
            raise Violation("damaged", f"{given} was handed over", self.name)
        if message.qos == 2:
            if message.delivery_id == 0:
                raise Violation("delivery_id", f"{given} has none", self.name)
            known = device.deliveries.get(message.delivery_id)
            if known is not None and known is not given:
                text = f"{message.delivery_id} is {known}'s, and {given}'s"
                raise Violation("delivery_id", text, self.name)
            if known is not None and device.kind.manual_ack and device.kind.has_outbox:
                return
            device.deliveries[message.delivery_id] = given
        self.simulation.ledger.came(given, self.name)


def _retrieve(waiter: "asyncio.Future[None]") -> None:
    if not waiter.cancelled():
        waiter.exception()
