"""Logins: what becomes of an answer that cannot be had."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.auth.access import AccessControl
from holdfast.auth.acl import AclFile
from holdfast.auth.chain import Chain
from holdfast.auth.interface import Authenticator
from holdfast.auth.link import Answer, Link
from holdfast.broker.authentication import (
    GRANT,
    REFUSE,
    AuthReply,
    AuthRequest,
    AuthStep,
    go_on,
    grant,
    refuse,
)
from holdfast.broker.identity import Identity
from holdfast.net.logins import Logins
from holdfast.protocol.reason_codes import SERVER_UNAVAILABLE
from tests.broker.world import World
from tests.support.granting import Granting
from tests.support.properties import properties
from tests.support.wire import PATIENCE_S


class Odd(Link):
    """A plug-in that says yes in its own way when it is asked again."""

    def step(self, request: AuthRequest) -> Answer:
        return grant()

    def renew(self, request: AuthRequest, identity: Identity) -> Answer:
        return True  # type: ignore[return-value]  # that is what is wrong with it


class Unfit:
    """Not a chain, and it fails when it is asked again."""

    methods = frozenset[str]()

    def step(self, request: AuthRequest) -> AuthReply:
        raise RuntimeError("the directory cannot be reached")


class Wrong:
    """Puts into its replies what does not belong there."""

    methods = frozenset[str]()

    def __init__(self, make: Callable[[], AuthReply]) -> None:
        self._make = make

    def step(self, request: AuthRequest) -> AuthReply:
        return self._make()


def answered(step: AuthStep, authenticator: Authenticator) -> AuthReply:
    """What the broker is told when a thread has asked this authenticator."""

    async def answer() -> list[tuple[AuthStep, AuthReply]]:
        is_answered = asyncio.Event()
        logins = Logins(
            loop=asyncio.get_running_loop(),
            authenticators={step.request.listener: authenticator},
            schedule=is_answered.set,
        )
        logins.begin([step])
        await asyncio.wait_for(is_answered.wait(), PATIENCE_S)
        logins.leave()
        return logins.take_replies()

    ((_, reply),) = asyncio.run(answer())
    return reply


def asked_again(authenticator: Authenticator, now_allowed: str) -> None:
    """A client that may publish to ``mine`` alone stays, and may publish to this alone."""
    world = World(authenticator=Granting({"c": "allow publish mine"}))
    connection = world.hello("c").connection
    assert connection.identity is not None
    connection.identity.source = "odd"
    world.are_auth_steps_held = True
    world.broker.renew_identities()
    world.run()

    (step,) = world.auth_steps
    reply = answered(step, authenticator)
    assert reply.kind == GRANT
    before = connection.identity
    world.broker.auth_done(step, reply)
    assert connection.identity is before
    assert connection.permissions is not None
    topics = [one for one in ("mine", "new") if connection.permissions.may_publish(one, False)]
    assert topics == [now_allowed]


def test_a_client_stays_by_the_rules_of_now_when_a_plugin_answers_oddly(tmp_path: Path) -> None:
    file = tmp_path / "acl.toml"
    file.write_text('[[rules]]\nallow = "publish"\ntopics = "new"\n')
    acl = AclFile(file)
    acl.reload()
    asked_again(Chain([Odd("odd")], AccessControl([acl])), "new")


def test_a_client_keeps_its_permissions_when_its_authenticator_fails() -> None:
    asked_again(Unfit(), "mine")


@pytest.mark.parametrize(
    "make",
    [
        lambda: go_on("text", None),  # type: ignore[arg-type]  # that is the point
        lambda: grant(bytearray(b"data")),  # type: ignore[arg-type]  # that is the point
        lambda: grant(user_name=7),  # type: ignore[arg-type]  # that is the point
        lambda: grant(identity="ada"),  # type: ignore[arg-type]  # that is the point
        lambda: grant(identity=Identity("ada", expires_at_ms="soon")),  # type: ignore[arg-type]  # that is the point
        lambda: grant(permissions=["all"]),  # type: ignore[arg-type]  # that is the point
        lambda: refuse("0x87"),  # type: ignore[arg-type]  # that is the point
        lambda: refuse(reason=b"no"),  # type: ignore[arg-type]  # that is the point
        lambda: refuse(detail=None),  # type: ignore[arg-type]  # that is the point
        lambda: AuthReply(7, None, None, None, 0, ""),
    ],
)
def test_a_reply_that_the_broker_could_not_take_lets_nobody_in(
    make: Callable[[], AuthReply],
) -> None:
    """Compiled, most of these fail where they are made; interpreted, they would stop the broker."""
    world = World(authenticator=Granting())
    world.are_auth_steps_held = True
    client = world.connect("c", properties=properties(authentication_method="ANY"))
    (step,) = world.auth_steps
    reply = answered(step, Wrong(make))
    assert (reply.kind, reply.reason_code) == (REFUSE, SERVER_UNAVAILABLE)
    world.broker.auth_done(step, reply)
    world.run()
    assert client.received() == ["CONNACK 0x88"]
