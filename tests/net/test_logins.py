"""Logins: what becomes of an answer that cannot be had."""

import asyncio
from pathlib import Path

from holdfast.auth.access import AccessControl
from holdfast.auth.acl import AclFile
from holdfast.auth.chain import Chain
from holdfast.auth.interface import Authenticator
from holdfast.auth.link import Answer, Link
from holdfast.broker.authentication import GRANT, AuthReply, AuthRequest, grant
from holdfast.broker.identity import Identity
from holdfast.net.logins import Logins
from tests.broker.world import World
from tests.support.granting import Granting
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


def asked_again(authenticator: Authenticator, now_allowed: str) -> None:
    """A client that may publish to ``mine`` alone stays, and may publish to this alone."""
    world = World(authenticator=Granting({"c": "allow publish mine"}))
    connection = world.hello("c").connection
    assert connection.identity is not None
    connection.identity.source = "odd"
    world.are_auth_steps_held = True
    world.broker.renew_identities()
    world.run()

    async def answer() -> list[AuthReply]:
        answered = asyncio.Event()
        logins = Logins(
            loop=asyncio.get_running_loop(),
            authenticators={connection.rules.name: authenticator},
            schedule=answered.set,
        )
        logins.begin(world.auth_steps)
        await asyncio.wait_for(answered.wait(), PATIENCE_S)
        logins.leave()
        return [reply for _, reply in logins.take_replies()]

    (reply,) = asyncio.run(answer())
    assert reply.kind == GRANT
    before = connection.identity
    (step,) = world.auth_steps
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
