"""Logins: the steps that the broker wants answered, on their way along the chains and back."""

import asyncio
import ipaddress
import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import UnionType
from typing import Final, Protocol, final

from holdfast.auth.chain import SHARED_LANE, Chain
from holdfast.auth.interface import Authenticator
from holdfast.broker.authentication import (
    CONTINUE,
    GRANT,
    REFUSE,
    AuthReply,
    AuthRequest,
    AuthStep,
    grant,
    refuse,
)
from holdfast.broker.identity import Identity
from holdfast.broker.permissions import Permissions
from holdfast.errors import AuthenticatorUnavailable, LimitExceeded
from holdfast.logs import get_logger
from holdfast.net.lanes import Lanes
from holdfast.protocol.reason_codes import SERVER_BUSY, SERVER_UNAVAILABLE

# One processor stays for the event loop; more threads than these bring more memory than speed.
SHARED_THREADS_MAX: Final = 4
RENEWALS_IN_ONE: Final = 64  # so many are asked in one job: logins come between two of them
FAILURE_INTERVAL_S: Final = 10.0  # between two lines about an authenticator that fails
RENEWALS: Final = "renewals"  # in the place of the address

# The reply for a client that has gone: what nobody waits for costs no work, and is no failed login.
_NOT_ASKED: Final = refuse()

_log = get_logger(__name__)

# Told of each client that was refused, with its step.
Refusal = Callable[[AuthStep, AuthReply], None]


class _Walk(Protocol):
    lane: str

    def advance(self) -> AuthReply | None: ...


# What a job brings back: for each of its steps a reply, or None if it goes on in another lane, or
# what was raised.
_Results = list[AuthReply | Exception | None]


@final
class Logins:
    """Has steps answered on threads; ``schedule`` is called when there are replies to take.

    ``authenticators`` and ``threads``: see ``Driver``. ``refused`` is called for each client that
    an authenticator has refused to let in, on the event loop, before the broker takes that reply.
    """

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        authenticators: Mapping[str, Authenticator],
        schedule: Callable[[], None],
        threads: int = 0,
        refused: Refusal | None = None,
    ) -> None:
        self._loop = loop
        self._authenticators = authenticators
        self._schedule = schedule
        self._refused = refused
        self._replies: list[tuple[AuthStep, AuthReply]] = []
        self._failed_at_s = -FAILURE_INTERVAL_S
        self._failures_left_out = 0
        self._lanes: Lanes[_Results] = Lanes(loop, _threads(authenticators.values(), threads))

    def begin(self, steps: list[AuthStep]) -> None:
        """Have these answered."""
        renewals: dict[str, list[tuple[AuthStep, _Walk]]] = {}
        for step in steps:
            walk = self._walk(step.connection.rules.name, step.request)
            if step.exchange is None:
                renewals.setdefault(walk.lane, []).append((step, walk))
            else:
                self._submit(walk.lane, source_of(step.request.address), [(step, walk)])
        for lane, asked in renewals.items():
            self._renew(lane, asked)

    def take_replies(self) -> list[tuple[AuthStep, AuthReply]]:
        """The steps that have been answered since the last call."""
        replies, self._replies = self._replies, []
        return replies

    def leave(self) -> None:
        """Wait for no answer any more."""
        self._lanes.leave()

    def join(self, patience_s: float) -> None:
        """After ``leave``, wait so long for the threads; from any thread."""
        self._lanes.join(patience_s)

    def _walk(self, listener: str, request: AuthRequest) -> _Walk:
        authenticator = self._authenticators[listener]
        if isinstance(authenticator, Chain):
            return authenticator.walk(request)
        return _Whole(authenticator, request)

    def _submit(self, lane: str, source: str, asked: list[tuple[AuthStep, _Walk]]) -> None:
        job = partial(_advance, asked)
        self._lanes.submit(lane, source, job, partial(self._advanced, source, asked))

    def _renew(self, lane: str, asked: list[tuple[AuthStep, _Walk]]) -> None:
        """Ask about these, some at a time, so that logins come between them."""
        now, later = asked[:RENEWALS_IN_ONE], asked[RENEWALS_IN_ONE:]

        def done(replies: _Results | None, error: BaseException | None) -> None:
            self._advanced(RENEWALS, now, replies, error)
            if later:
                self._renew(lane, later)

        # Never refused for a lack of room: who may be here no longer has to go.
        self._lanes.submit(lane, RENEWALS, partial(_advance, now), done, has_room=True)

    def _advanced(
        self,
        source: str,
        asked: list[tuple[AuthStep, _Walk]],
        replies: _Results | None,
        error: BaseException | None,
    ) -> None:
        if replies is None:
            # Its trouble is not ours: the client is refused, everyone else is served.
            replies = [self._trouble(step, error) for step, _ in asked]
        for (step, walk), reply in zip(asked, replies, strict=True):
            if reply is None:
                self._submit(walk.lane, source, [(step, walk)])
                continue
            if isinstance(reply, Exception):
                reply = self._trouble(step, reply)
            elif fault := _fault(reply):
                reply = self._trouble(step, TypeError(fault))
            is_refusal = reply.kind == REFUSE and reply is not _NOT_ASKED
            if is_refusal and step.exchange is not None and self._refused is not None:
                self._refused(step, reply)
            self._replies.append((step, reply))
        self._schedule()

    def _trouble(self, step: AuthStep, error: BaseException | None) -> AuthReply:
        if step.exchange is None:
            self._report(step, error)
            # That nobody can be asked is no reason to end what was granted.
            request = step.request
            return grant(identity=request.renewed, permissions=request.permissions)
        if isinstance(error, LimitExceeded):
            return refuse(SERVER_BUSY, detail=str(error))
        self._report(step, error)
        return refuse(SERVER_UNAVAILABLE, detail="the authenticator failed")

    def _report(self, step: AuthStep, error: BaseException | None) -> None:
        """One line for a burst of failures: every client that comes now may cause one."""
        now_s = self._loop.time()
        if now_s - self._failed_at_s < FAILURE_INTERVAL_S:
            self._failures_left_out += 1
            return
        self._failed_at_s = now_s
        left_out, self._failures_left_out = self._failures_left_out, 0
        text = "the authenticator failed"
        fields = {"listener": step.request.listener, "failures_before": left_out}
        if isinstance(error, AuthenticatorUnavailable):
            _log.error(f"{text}: {error}", **fields)
        else:
            _log.failure(text, error or AssertionError("no result"), **fields)


@final
class _Whole:
    """The way of a request to an authenticator that is not a chain."""

    def __init__(self, authenticator: Authenticator, request: AuthRequest) -> None:
        self.lane = SHARED_LANE
        self._authenticator = authenticator
        self._request = request

    def advance(self) -> AuthReply | None:
        return self._authenticator.step(self._request)


def source_of(address: str) -> str:
    """Who takes turns with others: an address without its port, or a network of IPv6.

    Whoever has one address of IPv6 has the 2^64 of its network.
    """
    host = address.rpartition(":")[0] if not address.endswith("]") else address
    if not host.startswith("["):
        return host or address
    try:
        packed = ipaddress.IPv6Address(host.strip("[]").partition("%")[0]).packed
    except ValueError:
        return host
    return packed[:8].hex()


def _fault(reply: object) -> str:
    """What is wrong with a reply of which a turn could make nothing, "" if it can be taken.

    Only types are named: whatever it is, it may have been a password.
    """
    if not isinstance(reply, AuthReply):
        return f"expected an AuthReply, got a {type(reply).__name__}"
    identity = reply.identity
    parts: list[tuple[str, object, type | UnionType]] = [
        ("kind", reply.kind, int),
        ("data", reply.data, bytes | None),
        ("identity", identity, Identity | None),
        ("reason_code", reply.reason_code, int),
        ("reason", reply.reason, str),
        ("detail", reply.detail, str),
        ("permissions", reply.permissions, Permissions | None),
    ]
    if isinstance(identity, Identity):
        parts += [
            ("user_name", identity.user_name, str | None),
            ("expires_at_ms", identity.expires_at_ms, int),
        ]
    for name, value, expected in parts:
        if not isinstance(value, expected):
            return f"expected another {name} in an AuthReply, got a {type(value).__name__}"
    if reply.kind not in (CONTINUE, GRANT, REFUSE):
        return "expected an AuthReply that go_on, grant or refuse has made"
    return ""


def _threads(authenticators: Iterable[Authenticator], shared: int) -> dict[str, int]:
    """The lanes, and how many threads each has."""
    lanes = {SHARED_LANE: shared or max(1, min(SHARED_THREADS_MAX, (os.cpu_count() or 1) - 1))}
    for authenticator in authenticators:
        if isinstance(authenticator, Chain):
            lanes |= authenticator.lanes
    return lanes


def _advance(asked: list[tuple[AuthStep, _Walk]]) -> _Results:
    """Runs on a thread of a lane, where steps stand in line."""
    return [_answer(step, walk) for step, walk in asked]


def _answer(step: AuthStep, walk: _Walk) -> AuthReply | Exception | None:
    if step.connection.is_closing:
        return _NOT_ASKED
    try:
        return walk.advance()
    # Whatever a plug-in raises ends one login, and is reported.
    except Exception as error:
        return error
