"""What applications were promised, and what came of it."""

from typing import Final

from tests.sim.taps import Violation

# What may have become of a message that an application gave away.
OPEN: Final = "open"  # publish has not returned
PROMISED: Final = "promised"
FREE: Final = "free"  # it may come or not: cancelled, dropped, refused by the server
NEVER: Final = "never"  # publish has refused it


class Given:
    """A message on its way from an application, to a server or to another application."""

    def __init__(self, number: int, qos: int, origin: str) -> None:
        self.number = number
        self.qos = qos
        self.origin = origin
        self.state = OPEN
        # By the server, or because it could not be stored: it may come later all the same.
        self.was_refused = False
        self.came = 0  # so often has the other end taken it for a new one
        self.sessions_lost = 0  # since it was first sent: each allows one repeat

    def __repr__(self) -> str:
        return f"{self.origin} {self.number} (QoS {self.qos}, {self.state})"

    @property
    def payload(self) -> bytes:
        return b"%s %d %d" % (self.origin.encode(), self.qos, self.number)

    @property
    def topic(self) -> str:
        return f"{self.origin}/q{self.qos}"

    def free(self) -> None:
        """Nothing is promised any more."""
        if self.state != NEVER:
            self.state = FREE


class Ledger:
    """All messages of a life, by who gave them away."""

    def __init__(self) -> None:
        self.given: dict[str, list[Given]] = {}
        self._newest: dict[tuple[str, str, int], int] = {}

    def give(self, origin: str, qos: int) -> Given:
        """The next message of an application."""
        mine = self.given.setdefault(origin, [])
        mine.append(Given(len(mine) + 1, qos, origin))
        return mine[-1]

    def find(self, payload: bytes) -> Given:
        origin, _, number = payload.split()[:3]
        return self.given[origin.decode()][int(number) - 1]

    def came(self, given: Given, taker: str) -> None:
        """Somebody has taken a message for a new one."""
        if given.state == NEVER:
            raise Violation("refused and sent", f"{given} came to {taker}", taker)
        given.came += 1
        if given.came > 1 and given.qos == 0:
            raise Violation("QoS 0 twice", f"{given} came to {taker}", taker)
        if given.came > 1 + given.sessions_lost and given.qos == 2:
            raise Violation("QoS 2 twice", f"{given} came to {taker}", taker)
        if given.came == 1:
            # A client sends all in the order of publish. Through a broker, and where QoS 2 waits
            # for the disk, each QoS has an order of its own.
            key = (given.origin, taker, -1 if taker == "server" else given.qos)
            newest = self._newest.get(key, 0)
            if given.number < newest and not given.was_refused:
                raise Violation("order", f"{given} came to {taker} after {newest}", taker)
            self._newest[key] = max(newest, given.number)

    def check(self, origin: str, lost_max: int, dropped_max: int) -> None:
        """All that was promised came.

        Of QoS 2 so many may be missing, one for each crash; and so many of any QoS were dropped by
        a policy, some of them with nobody there any more to be told.
        """
        missing = [
            one
            for one in self.given.get(origin, [])
            if one.state == PROMISED and one.qos > 0 and one.came == 0
        ]
        for one in missing:
            if (one.qos == 1 or lost_max == 0) and dropped_max == 0:
                raise Violation("accepted and lost", str(one), origin)
        if len(missing) > lost_max + dropped_max:
            raise Violation("accepted and lost", f"{missing}, {lost_max} crashes", origin)
