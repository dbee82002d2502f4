"""When a silent peer of a WebSocket is pinged, and when it is given up."""

from holdfast.net.websocket import GIVE_UP, LATE_S, PING, WAIT, Silence


def test_a_peer_is_pinged_after_the_interval_and_given_up_after_another() -> None:
    silence = Silence(30.0, 100.0)
    assert silence.due_s == 130.0
    assert silence.look(130.0) == PING
    assert silence.due_s == 160.0
    assert silence.look(160.0) == GIVE_UP


def test_whoever_says_something_is_not_pinged_until_it_is_silent_for_the_interval() -> None:
    silence = Silence(30.0, 100.0)
    silence.heard(125.0)
    assert silence.look(130.0) == WAIT
    assert silence.due_s == 155.0
    assert silence.look(155.0) == PING


def test_anything_counts_as_the_answer() -> None:
    silence = Silence(30.0, 100.0)
    assert silence.look(130.0) == PING
    silence.heard(159.0)
    assert silence.look(160.0) == WAIT
    assert silence.look(189.0) == PING
    assert silence.look(219.0) == GIVE_UP


def test_a_look_that_comes_too_late_gives_nobody_up() -> None:
    """The process was stopped: what the peer answered meanwhile has not been read yet."""
    silence = Silence(30.0, 100.0)
    assert silence.look(130.0) == PING
    late_s = 160.0 + LATE_S + 0.5
    assert silence.look(late_s) == WAIT
    assert silence.due_s == late_s + 30.0
    assert silence.look(late_s + 30.0) == PING
    assert silence.look(late_s + 60.0) == GIVE_UP
