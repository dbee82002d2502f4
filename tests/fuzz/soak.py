"""One broker for all inputs: what it keeps of those who have left would add up."""

from tests.fuzz.broker_target import Play, limits
from tests.fuzz.choices import Choices
from tests.fuzz.watch import FuzzWorld

PAUSE_MS = 61_000  # between two inputs: more than any wait that is not a session's own


class Soak:
    """A world that each input uses again, without crashes: they would begin it anew."""

    def __init__(self) -> None:
        self._world = FuzzWorld(limits(Choices(b"\x18")))

    def __call__(self, data: bytes) -> None:
        world = self._world
        play = Play(world)
        play.run(Choices(data), has_upsets=False)
        play.finish()
        play.end(PAUSE_MS, is_aged=False)
        world.kept.forget()
