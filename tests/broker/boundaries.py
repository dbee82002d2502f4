"""What has to come of a session at every boundary: a table to read, with nothing of the broker.

A *stage* is how far a QoS 1 or 2 exchange has come when a *boundary* cuts through it. A boundary is
a series of events. Whether a stage survives one depends only on where the stage's last step is:

- ``on the way``: sent by the client, not read by the broker yet;
- ``under way``: carried out by the broker, in a commit that has not ended;
- ``put off``: carried out, to be written within 50 ms (acknowledgements that only end something);
- ``durable``.
"""

from typing import NamedTuple

EXPIRY_S = 60  # the Session Expiry Interval of every session under test
WILL_DELAY_S = 30  # of its will, in 5.0

ON_THE_WAY = "on the way"
UNDER_WAY = "under way"
PUT_OFF = "put off"
DURABLE = "durable"


class Boundary(NamedTuple):
    """What happens, and what it does to the steps before it.

    Events: ``cut`` the connection is lost; ``leave`` DISCONNECT with Session Expiry Interval 0;
    ``hold`` from now on no commit ends by itself; ``crash`` the commit under way is lost;
    ``crash, kept`` it survives; ``stop`` the broker ends in good order; ``start``, ``start late``
    (after the session's time); ``wait`` for longer than the session's time; ``connect`` and
    ``connect clean``: whether the connection is still open decides if that is a takeover.
    """

    name: str
    events: tuple[str, ...]
    back: str  # the version that comes: "same" or "other" than the one before, "4" or "5"
    survives: frozenset[str]  # which steps do, besides those that are durable
    is_ended: bool  # the session
    wills: tuple[int, int]  # how often the will is published: of a 3.1.1 and of a 5.0 client
    resumptions: int = 1  # how often the session is resumed before the client looks


ALL = frozenset({ON_THE_WAY, UNDER_WAY, PUT_OFF})
READ = frozenset({UNDER_WAY, PUT_OFF})  # all that the broker has read
COMMITTED = frozenset({UNDER_WAY})
NOTHING: frozenset[str] = frozenset()

# A 3.1.1 will is published as soon as the connection ends without DISCONNECT. That of 5.0 waits
# for its delay here, unless the session ends before; a return cancels it.
BOUNDARIES = [
    Boundary("lost", ("cut", "connect"), "same", READ, False, (1, 0)),
    Boundary("lost_back_in_other_version", ("cut", "connect"), "other", READ, False, (1, 0)),
    Boundary("takeover_by_4", ("connect",), "4", ALL, False, (1, 0)),
    Boundary("takeover_by_5", ("connect",), "5", ALL, False, (1, 0)),
    Boundary("expired", ("cut", "wait", "connect"), "same", READ, True, (1, 1)),
    Boundary("expired_while_down", ("stop", "start late", "connect"), "same", READ, True, (1, 1)),
    Boundary("disconnect_0", ("leave", "connect"), "same", ALL, True, (0, 0)),
    Boundary("clean_by_4", ("connect clean",), "4", ALL, True, (1, 1)),
    Boundary("clean_by_5", ("connect clean",), "5", ALL, True, (1, 1)),
    Boundary("crash_kept", ("crash, kept", "start", "connect"), "same", COMMITTED, False, (1, 0)),
    Boundary("crash", ("crash", "start", "connect"), "same", NOTHING, False, (1, 0)),
    Boundary("restart", ("stop", "start", "connect"), "same", READ, False, (1, 0)),
    # Two in a row.
    Boundary("lost_restart", ("cut", "stop", "start", "connect"), "same", READ, False, (1, 0)),
    Boundary(
        "lost_crash", ("hold", "cut", "crash", "start", "connect"), "same", NOTHING, False, (1, 0)
    ),
    Boundary(
        "restart_restart",
        ("stop", "start", "stop", "start", "connect"),
        "same",
        READ,
        False,
        (1, 0),
    ),
    Boundary(
        "crash_crash",
        ("crash", "hold", "start", "crash", "start", "connect"),
        "same",
        NOTHING,
        False,
        (1, 0),
    ),
    Boundary("takeover_lost", ("connect", "cut", "connect"), "same", ALL, False, (1, 0), 2),
    Boundary(
        "takeover_crash",
        ("hold", "connect", "crash", "start", "connect"),
        "same",
        NOTHING,
        False,
        (1, 0),
    ),
    Boundary(
        "lost_expired", ("cut", "connect", "cut", "wait", "connect"), "same", READ, True, (1, 0), 2
    ),
    Boundary("lost_clean", ("cut", "connect clean"), "same", READ, True, (1, 1)),
    Boundary("crash_clean", ("crash", "start", "connect clean"), "same", NOTHING, True, (1, 1)),
]


class Outgoing(NamedTuple):
    """A stage of what the broker sends: which lines the session brings when it comes back.

    ``had`` are the messages that the application had before the boundary. At QoS 2 it has to have
    ``then``, each once; at QoS 1 it may have one of them twice.
    """

    name: str
    last_step: str
    had: str
    kept: tuple[str, ...]  # if the last step survives
    then: str
    lost: tuple[str, ...] = ()  # if not
    then_lost: str = ""
    is_absent: bool = False  # the session, at the time of the boundary
    is_subscribed_if_lost: bool = True


# A PUBLISH that waited for a commit, or was given to a connection that ended, may have been seen:
# it comes back under its identifier and with DUP. One that was not given to any has neither yet.
_OUTGOING = [
    Outgoing(
        "queued",
        DURABLE,
        had="",
        kept=("PUBLISH t a qN #1", "PUBLISH t b qN #2"),
        then="ab",
        is_absent=True,
    ),
    Outgoing(
        "queued_commit_held",
        UNDER_WAY,
        had="",
        kept=("PUBLISH t a qN #1", "PUBLISH t b qN #2"),
        then="ab",
        is_absent=True,
    ),
    Outgoing(
        "sent_commit_held",
        UNDER_WAY,
        had="",
        kept=("PUBLISH t a qN #1 dup", "PUBLISH t b qN #2 dup"),
        then="ab",
    ),
    Outgoing(
        "sent",
        DURABLE,
        had="ab",
        kept=("PUBLISH t a qN #1 dup", "PUBLISH t b qN #2 dup"),
        then="ab",
    ),
    Outgoing(
        "window_full",
        DURABLE,
        had="ab",
        kept=(
            "PUBLISH t a qN #1 dup",
            "PUBLISH t b qN #2 dup",
            "PUBLISH t c qN #3",
            "PUBLISH t d qN #4",
        ),
        then="abcd",
    ),
    Outgoing(
        "socket_full",
        DURABLE,
        had="a",
        kept=("PUBLISH t a qN #1 dup", "PUBLISH t b qN #2", "PUBLISH t c qN #3"),
        then="abc",
    ),
    Outgoing(
        "reading_the_log",
        DURABLE,
        had="",
        kept=("PUBLISH t a qN #1", "PUBLISH t b qN #2"),
        then="ab",
    ),
    Outgoing(
        "resent_in_part",
        DURABLE,
        had="abc",
        kept=("PUBLISH t a qN #1 dup", "PUBLISH t b qN #2 dup", "PUBLISH t c qN #3 dup"),
        then="abc",
    ),
    Outgoing(
        "resending_read_held",
        DURABLE,
        had="abc",
        kept=("PUBLISH t a qN #1 dup", "PUBLISH t b qN #2 dup", "PUBLISH t c qN #3 dup"),
        then="abc",
    ),
    Outgoing(
        "retained_commit_held",
        UNDER_WAY,
        had="",
        kept=("PUBLISH t a qN #1 dup retain",),
        then="a",
        is_subscribed_if_lost=False,
    ),
    # The slot was filled anew since: the retained message on its way stays the old one.
    Outgoing(
        "retained_sent",
        DURABLE,
        had="ab",
        kept=("PUBLISH t a qN #1 dup retain", "PUBLISH t b qN #2 dup"),
        then="ab",
    ),
    # The slot was cleared since.
    Outgoing(
        "retained_window_full",
        DURABLE,
        had="a",
        kept=("PUBLISH t a qN #1 dup retain", "PUBLISH t/1 b qN #2 retain"),
        then="ab",
    ),
]

_OUTGOING_QOS_1 = [
    Outgoing(
        "acknowledged",
        PUT_OFF,
        had="ab",
        kept=("PUBLISH t b q1 #2 dup",),
        then="ab",
        lost=("PUBLISH t a q1 #1 dup", "PUBLISH t b q1 #2 dup"),
        then_lost="ab",
    ),
]

_OUTGOING_QOS_2 = [
    Outgoing(
        "pubrel_held",
        UNDER_WAY,
        had="ab",
        kept=("PUBREL #1", "PUBLISH t b q2 #2 dup"),
        then="ab",
        lost=("PUBLISH t a q2 #1 dup", "PUBLISH t b q2 #2 dup"),
        then_lost="ab",
    ),
    Outgoing(
        "pubrel_sent",
        DURABLE,
        had="ab",
        kept=("PUBREL #1", "PUBLISH t b q2 #2 dup"),
        then="ab",
    ),
    Outgoing(
        "completed",
        PUT_OFF,
        had="ab",
        kept=("PUBLISH t b q2 #2 dup",),
        then="ab",
        lost=("PUBREL #1", "PUBLISH t b q2 #2 dup"),
        then_lost="ab",
    ),
]


def _at(qos: int, stage: Outgoing) -> Outgoing:
    lines = tuple(line.replace("qN", f"q{qos}") for line in stage.kept)
    return stage._replace(name=f"q{qos}_{stage.name}", kept=lines)


OUTGOING = [
    *(_at(1, stage) for stage in [*_OUTGOING, *_OUTGOING_QOS_1]),
    *(_at(2, stage) for stage in [*_OUTGOING, *_OUTGOING_QOS_2]),
]


class Incoming(NamedTuple):
    """A stage of what a client publishes, message ``a`` under identifier 1.

    ``sends`` is what it has to send when it finds its session again. ``kept`` and ``lost`` are the
    copies that a QoS 2 subscriber has in the end; ``taken`` and ``not_taken`` those that it has if
    the session ended, and the client left it at that.
    """

    name: str
    last_step: str
    sends: str  # "PUBLISH" (with DUP), "PUBREL", "" for nothing
    kept: str
    lost: str
    taken: str
    not_taken: str


INCOMING = [
    # At QoS 1 a message comes twice whose PUBACK did not reach its publisher.
    Incoming("q1_publish_sent", ON_THE_WAY, "PUBLISH", "aa", "a", "a", ""),
    Incoming("q1_puback_held", UNDER_WAY, "PUBLISH", "aa", "a", "a", ""),
    Incoming("q1_done", DURABLE, "", "a", "a", "a", "a"),
    Incoming("q2_publish_sent", ON_THE_WAY, "PUBLISH", "a", "a", "a", ""),
    Incoming("q2_pubrec_held", UNDER_WAY, "PUBLISH", "a", "a", "a", ""),
    Incoming("q2_pubrec_sent", DURABLE, "PUBREL", "a", "a", "a", "a"),
    Incoming("q2_pubrel_sent", ON_THE_WAY, "PUBREL", "a", "a", "a", "a"),
    Incoming("q2_pubcomp_held", UNDER_WAY, "PUBREL", "a", "a", "a", "a"),
    Incoming("q2_done", DURABLE, "", "a", "a", "a", "a"),
]


class Cell(NamedTuple):
    """One stage at one boundary, for a session begun in one version."""

    stage: Outgoing | Incoming
    boundary: Boundary
    version: int

    @property
    def id(self) -> str:
        return f"{self.stage.name}-{self.boundary.name}-v{self.version}"

    @property
    def back(self) -> int:
        """The version of the connection that comes."""
        back = self.boundary.back
        if back in ("4", "5"):
            return int(back)
        return self.version if back == "same" else 9 - self.version

    @property
    def is_kept(self) -> bool:
        """Whether the last step of the stage survives."""
        step = self.stage.last_step
        return step == DURABLE or step in self.boundary.survives

    @property
    def is_absent(self) -> bool:
        return isinstance(self.stage, Outgoing) and self.stage.is_absent

    @property
    def wills(self) -> int:
        """How often its will is published. One of an absent session's client was before."""
        return 0 if self.is_absent else self.boundary.wills[self.version - 4]

    @property
    def farewell(self) -> list[str]:
        """What the connection at the stage is told at its end."""
        stage = self.stage.name
        first = next(event for event in self.boundary.events if event != "hold")
        if self.version == 4 or self.is_absent or stage.endswith("socket_full"):
            return []
        return {
            "connect": ["DISCONNECT 0x8E"],
            "connect clean": ["DISCONNECT 0x8E"],
            "stop": ["DISCONNECT 0x8B"],
        }.get(first, [])

    @property
    def lines(self) -> list[str]:
        """What the session brings on its own when it comes back."""
        if self.boundary.is_ended:
            return []
        stage = self.stage
        assert isinstance(stage, Outgoing)
        lines = stage.kept if self.is_kept else stage.lost
        return [_again(line) for line in lines] if self.boundary.resumptions > 1 else list(lines)

    @property
    def delivered(self) -> str:
        """The messages that the application has had once all is acknowledged."""
        stage = self.stage
        assert isinstance(stage, Outgoing)
        if self.boundary.is_ended:
            return stage.had
        return stage.then if self.is_kept else stage.then_lost

    @property
    def is_subscribed(self) -> bool:
        stage = self.stage
        if self.boundary.is_ended:
            return False
        return self.is_kept or isinstance(stage, Incoming) or stage.is_subscribed_if_lost

    @property
    def copies(self) -> str:
        """What a QoS 2 subscriber has in the end of what the client publishes."""
        stage = self.stage
        assert isinstance(stage, Incoming)
        if self.boundary.is_ended:
            return stage.taken if self.is_kept else stage.not_taken
        return stage.kept if self.is_kept else stage.lost


def impossible(cell: Cell) -> str:
    """Why there is no such cell, or nothing."""
    events = cell.boundary.events
    if "leave" in events and cell.version == 4:
        return "a DISCONNECT of 3.1.1 has no Session Expiry Interval"
    if cell.is_absent and "leave" in events:
        return "the session is absent: nobody is there to send DISCONNECT"
    if cell.is_absent and "takeover" in cell.boundary.name:
        return "the session is absent: there is no connection to take over"
    return ""


def _again(line: str) -> str:
    """A line that comes once more: what is known of it, its identifier above all, stays."""
    if not line.startswith("PUBLISH") or " dup" in line:
        return line
    return line.replace(" retain", " dup retain") if " retain" in line else f"{line} dup"


STAGES: list[Outgoing | Incoming] = [*OUTGOING, *INCOMING]

CELLS = [
    Cell(stage, boundary, version)
    for stage in STAGES
    for boundary in BOUNDARIES
    for version in (4, 5)
]
