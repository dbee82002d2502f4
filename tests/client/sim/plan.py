"""What a seed stands for: how rough this life is."""

import random

from tests.client.sim.process import Kind


class Plan:
    """The numbers of one life; times in seconds."""

    def __init__(self, chance: random.Random) -> None:
        self.has_broker = chance.random() < 0.35
        self.lasts_s = chance.choice([5.0, 15.0])
        self.network_s = chance.choice([0.0, 0.01, 0.2])
        self.pieces = chance.choice([0.0, 0.3])
        self.commit_s = chance.choice([0.0, 0.005, 0.1, 0.5])
        self.commit_fails = chance.choice([0.0, 0.0, 0.02])
        self.disk_losses = chance.choice([0.0, 0.0, 0.1])  # with a process, its file is gone
        self.notice_s = chance.choice([0.0, 0.5, 2.0])
        self.full_sockets = chance.choice([0.0, 0.0, 0.3])
        self.cuts = chance.choice([0, 2, 8])
        self.silences = chance.choice([0, 0, 2])
        self.dial_fails = chance.choice([0.0, 0.2])
        self.refuses = chance.choice([0.0, 0.0, 0.1])
        self.forgets = 0 if self.has_broker else chance.choice([0, 0, 2, 6])
        self.broker_crashes = chance.choice([0, 2]) if self.has_broker else 0
        self.is_disk_slow = chance.random() < 0.5
        self.server_maximum = chance.choice([1, 3, 20, 65_535])
        self.window = chance.choice([1, 3, 10])  # messages to a client at once
        self.answer_s = chance.choice([0.0, 0.02, 0.3])
        self.any_order = chance.random() < 0.5
        self.points = chance.choice([30, 120, 400])
        self.ids = chance.choice([0, 0, 4, 9])  # of messages that are sent; 0 for all there are
        self.kinds = self._kinds(chance)

    def _kinds(self, chance: random.Random) -> dict[str, Kind]:
        has_outbox = chance.random() < 0.85
        if self.has_broker:
            return {
                "pub": self._kind(chance, has_outbox, publishes=True),
                "sub": self._kind(chance, has_outbox, subscribes_to="pub/#"),
            }
        both = chance.random() < 0.6
        publishes = both or chance.random() < 0.6
        return {
            "dev": self._kind(
                chance,
                has_outbox,
                publishes=publishes,
                subscribes_to="server/#" if both or not publishes else "",
            )
        }

    def _kind(
        self,
        chance: random.Random,
        has_outbox: bool,
        *,
        publishes: bool = False,
        subscribes_to: str = "",
    ) -> Kind:
        return Kind(
            version=chance.choice([4, 5]),
            publishes=publishes,
            subscribes_to=subscribes_to,
            has_outbox=has_outbox,
            manual_ack=chance.random() < 0.5,
            messages=chance.choice([20, 60]) if publishes else 0,
            messages_max=chance.choice([4, 20, 1000, 1000]),
            policy=chance.choice(["wait", "wait", "refuse", "drop-oldest"]),
            in_flight_max=chance.choice([1, 4, 65_000]),
            receive_maximum=chance.choice([1, 4, 1000]),
            lives=not has_outbox or chance.random() < 0.15,
        )
