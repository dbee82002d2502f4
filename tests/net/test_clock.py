"""The broker's time does not stand still or go back, whatever is done to the machine's."""

from holdfast.net.clock import Clock

HOUR_NS = 3_600_000_000_000
MS_NS = 1_000_000


class Machine:
    """Both clocks of a machine, in the test's hands."""

    def __init__(self) -> None:
        self.wall_ns = 1_700_000_000_000 * MS_NS
        self.steady_ns = 5 * HOUR_NS
        self.clock = Clock(lambda: self.wall_ns, lambda: self.steady_ns)

    def passes(self, ms: int) -> None:
        self.wall_ns += ms * MS_NS
        self.steady_ns += ms * MS_NS


def test_it_is_the_time_of_the_wall() -> None:
    machine = Machine()
    assert machine.clock() == 1_700_000_000_000
    machine.passes(1234)
    assert machine.clock() == 1_700_000_001_234


def test_it_follows_a_wall_clock_that_is_set_forward() -> None:
    machine = Machine()
    machine.wall_ns += HOUR_NS
    assert machine.clock() == 1_700_003_600_000


def test_it_goes_on_at_its_pace_when_the_wall_clock_is_set_back_and_meets_it_again() -> None:
    machine = Machine()
    machine.wall_ns -= HOUR_NS
    for second in range(1, 5):
        machine.passes(1000)
        assert machine.clock() == 1_700_000_000_000 + second * 1000
    machine.wall_ns += 2 * HOUR_NS
    assert machine.clock() == 1_700_003_604_000
    machine.passes(1)
    assert machine.clock() == 1_700_003_604_001
