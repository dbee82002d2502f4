"""The ``$SYS`` tree: what the broker tells about itself, as monitoring tools know it of Mosquitto.

Its messages are of the moment. They go to who is online, at QoS 0, and are retained in memory
alone: no record of them is in any batch, and none is left after a restart.
docs/reference/sys-topics.md says what each topic means.
"""

from math import exp
from typing import Final, final

from holdfast.broker.counters import Counters
from holdfast.broker.limits import LATENCIES_MAX
from holdfast.broker.refusals import RefusalCounters
from holdfast.broker.router import Router
from holdfast.broker.sessions import Sessions
from holdfast.broker.space import LogSpace

SYS_ROOT: Final = "$SYS/broker/"
LOAD_MINUTES: Final = (1, 5, 15)


@final
class SysTopics:
    """Publishes the tree whenever ``publish`` is called; a value that is as before stays as it is.

    ``version`` is the text of ``$SYS/broker/version``.
    """

    def __init__(
        self,
        version: str,
        now_ms: int,
        router: Router,
        sessions: Sessions,
        space: LogSpace,
        counters: Counters,
        refusals: RefusalCounters,
    ) -> None:
        self._version = version
        self._router = router
        self._sessions = sessions
        self._space = space
        self._counters = counters
        self._refusals = refusals
        self._started_ms = now_ms
        self._published_ms = now_ms
        self._values: dict[str, str] = {}  # what is retained, by topic
        self._payload_bytes = 0  # of it
        self._loads: dict[str, Load] = {}
        self._latencies = Latencies()

    def note_commit(self, took_us: int) -> None:
        """A commit has taken this long; it counts for the interval that is not published yet."""
        self._latencies.add(took_us)

    def publish(self, now_ms: int) -> None:
        """Publish what has changed since the last call."""
        # All is measured first: publishing moves some of the counters.
        values: dict[str, str] = {"version": self._version}
        values["uptime"] = f"{max(now_ms - self._started_ms, 0) // 1000} seconds"
        self._measure_clients(values)
        self._measure_traffic(values)
        self._measure_refusals(values)
        self._measure_loads(values, now_ms)
        self._measure_store(values)
        self._published_ms = now_ms
        for name, value in values.items():
            old = self._values.get(name)
            if old != value:
                self._values[name] = value
                self._payload_bytes += len(value) - (0 if old is None else len(old))
                self._router.publish_unlogged(SYS_ROOT + name, value.encode())

    def _measure_clients(self, values: dict[str, str]) -> None:
        sessions = self._sessions
        absent = str(sessions.count - sessions.online)
        values["clients/connected"] = str(sessions.online)
        values["clients/active"] = values["clients/connected"]
        values["clients/disconnected"] = absent
        values["clients/inactive"] = absent
        values["clients/total"] = str(sessions.count)
        values["clients/maximum"] = str(sessions.online_max)
        values["clients/expired"] = str(self._counters.expired)
        tree = self._router.tree
        values["subscriptions/count"] = str(tree.subscriptions)
        values["shared_subscriptions/count"] = str(tree.shared_subscriptions)

    def _measure_traffic(self, values: dict[str, str]) -> None:
        counters = self._counters
        values["messages/received"] = str(counters.packets_received)
        values["messages/sent"] = str(counters.packets_sent)
        values["publish/messages/received"] = str(counters.received)
        values["publish/messages/sent"] = str(counters.sent)
        values["publish/messages/dropped"] = str(counters.dropped)
        values["queues/messages/lost"] = str(counters.lost)
        values["queues/bytes/lost"] = str(counters.lost_bytes)
        values["acl/publish/denied"] = str(counters.denied_publishes)
        values["acl/subscribe/denied"] = str(counters.denied_subscriptions)
        values["acl/receive/denied"] = str(counters.denied_deliveries)
        values["publish/bytes/received"] = str(counters.received_payload_bytes)
        values["publish/bytes/sent"] = str(counters.sent_payload_bytes)
        values["bytes/received"] = str(counters.bytes_received)
        values["bytes/sent"] = str(counters.bytes_sent)

    def _measure_refusals(self, values: dict[str, str]) -> None:
        refusals = self._refusals
        counters = self._counters
        for name, count in refusals.connections.items():
            values[f"refused/connections/{name}"] = str(count)
        for name, count in refusals.unfit.items():
            values[f"refused/connections/{name}"] = str(count)
        values["refused/connections/evicted"] = str(refusals.evicted)
        values["refused/connects"] = str(counters.refused_connections)
        values["refused/publishes"] = str(counters.refused)
        values["refused/subscriptions"] = str(counters.refused_subscriptions)
        values["refused/timeouts"] = str(counters.timeouts)
        values["refused/flapping"] = str(counters.flapping)
        values["refused/too_fast"] = str(counters.too_fast)
        values["publish/slowed_down"] = str(counters.held_back)
        values["refused/protocol_errors"] = str(counters.protocol_errors)
        values["clients/unauthenticated"] = str(refusals.unauthenticated)
        values["logins/failed"] = str(refusals.failed_logins)
        values["memory/bytes"] = str(refusals.memory_bytes)
        values["memory/stage"] = str(refusals.memory_stage)
        values["memory/throttled"] = str(counters.throttled)
        values["bans/count"] = str(refusals.banned)
        values["bans/total"] = str(refusals.bans)

    def _measure_loads(self, values: dict[str, str], now_ms: int) -> None:
        counters = self._counters
        totals = {
            "messages/received": counters.packets_received,
            "messages/sent": counters.packets_sent,
            "publish/received": counters.received,
            "publish/sent": counters.sent,
            "publish/dropped": counters.dropped,
            "bytes/received": counters.bytes_received,
            "bytes/sent": counters.bytes_sent,
            "connections": counters.connects,
            "sockets": counters.connections,
        }
        elapsed_ms = now_ms - self._published_ms
        for name, total in totals.items():
            load = self._loads.get(name)
            if load is None:
                load = Load()
                self._loads[name] = load
            # No time has passed at the start, nor when the clock was set back: then what came
            # counts for the next interval.
            if elapsed_ms > 0:
                load.add(total, elapsed_ms)
            for index in range(len(LOAD_MINUTES)):
                name_of_one = f"load/{name}/{LOAD_MINUTES[index]}min"
                values[name_of_one] = f"{load.averages[index]:.2f}"

    def _measure_store(self, values: dict[str, str]) -> None:
        retained = self._router.retained
        retained_count = retained.count - len(self._values)
        retained_bytes = retained.payload_bytes - self._payload_bytes
        space = self._space
        values["retained messages/count"] = str(retained_count)
        values["store/messages/count"] = str(retained_count + space.log_messages)
        values["messages/stored"] = values["store/messages/count"]
        values["store/messages/bytes"] = str(retained_bytes + space.log_bytes)
        values["store/log/messages"] = str(space.log_messages)
        values["store/log/bytes"] = str(space.log_bytes)
        values["store/sessions_behind"] = str(self._sessions.count_behind())
        values["store/commits/count"] = str(self._counters.commits)
        p50_us, p99_us, maximum_us = self._latencies.take()
        values["store/commits/latency_ms/p50"] = _milliseconds(p50_us)
        values["store/commits/latency_ms/p99"] = _milliseconds(p99_us)
        values["store/commits/latency_ms/maximum"] = _milliseconds(maximum_us)


@final
class Load:
    """How much of something comes per minute: averages in which the past fades exponentially.

    After t minutes without any, an average over n minutes is down to exp(-t/n) of what it was.
    """

    def __init__(self) -> None:
        self.averages = [0.0] * len(LOAD_MINUTES)
        self._total = 0

    def add(self, total: int, elapsed_ms: int) -> None:
        """``elapsed_ms`` (above 0) after the last call, the thing has come ``total`` times."""
        per_minute = (total - self._total) * 60_000.0 / elapsed_ms
        self._total = total
        for index in range(len(LOAD_MINUTES)):
            rest = exp(-elapsed_ms / (60_000.0 * LOAD_MINUTES[index]))
            self.averages[index] = per_minute + rest * (self.averages[index] - per_minute)


@final
class Latencies:
    """How long commits took, in microseconds, since the last look."""

    def __init__(self) -> None:
        self._newest: list[int] = []
        self._count = 0
        self._maximum = 0

    def add(self, took_us: int) -> None:
        if self._count < LATENCIES_MAX:
            self._newest.append(took_us)
        else:
            self._newest[self._count % LATENCIES_MAX] = took_us
        self._count += 1
        self._maximum = max(self._maximum, took_us)

    def take(self) -> tuple[int, int, int]:
        """The median and the 99th percentile of the newest, the maximum of all; 0 for none."""
        ordered = sorted(self._newest)
        maximum = self._maximum
        self._newest = []
        self._count = 0
        self._maximum = 0
        return _percentile(ordered, 50), _percentile(ordered, 99), maximum


def _percentile(ordered: list[int], percent: int) -> int:
    """The smallest value that so many percent do not exceed, 0 for none."""
    if not ordered:
        return 0
    return ordered[(len(ordered) * percent + 99) // 100 - 1]


def _milliseconds(us: int) -> str:
    return f"{us / 1000.0:.2f}"
