"""Authentication through the real driver: the authenticator works on a thread of its own."""

import threading
from collections.abc import Iterator
from typing import cast

import pytest

from holdfast.broker.authentication import AuthReply, AuthRequest
from tests.support import packets
from tests.support.challenge import METHOD, ChallengeAuthenticator, proof, server_proof
from tests.support.local import LocalServer
from tests.support.packets import (
    AUTH,
    AUTH_DATA,
    AUTH_METHOD,
    CONNACK,
    DISCONNECT,
    PUBACK,
    V5,
    V311,
    Packet,
)
from tests.support.wire import PATIENCE_S, Wire, contents

KEY = b"a key"
BEGIN, GO_ON = 0x19, 0x18


class SlowAuthenticator(ChallengeAuthenticator):
    """Answers nothing while it is held, as one that hashes, or asks a directory."""

    def __init__(self) -> None:
        super().__init__({"ada": KEY})
        self.has_to_wait = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.threads: set[str] = set()

    def step(self, request: AuthRequest) -> AuthReply:
        self.threads.add(threading.current_thread().name)
        if not self.may_answer.is_set():
            self.has_to_wait.set()
        assert self.may_answer.wait(PATIENCE_S)
        return super().step(request)


@pytest.fixture
def authenticator() -> SlowAuthenticator:
    return SlowAuthenticator()


@pytest.fixture
def server(authenticator: SlowAuthenticator) -> Iterator[LocalServer]:
    with LocalServer(authenticator) as server:
        yield server
        authenticator.may_answer.set()


def said(data: bytes) -> packets.Properties:
    return {AUTH_METHOD: METHOD, AUTH_DATA: data}


def data_of(packet: Packet) -> bytes:
    (data,) = packet.properties[AUTH_DATA]
    assert isinstance(data, bytes)
    return data


def prove(wire: Wire) -> bytes:
    """Answer both challenges; returns the last."""
    nonce = b""
    for _ in range(2):
        challenge = wire.expect(AUTH)
        assert challenge.code == GO_ON
        nonce = data_of(challenge)
        wire.send(packets.auth(GO_ON, said(proof(KEY, nonce))))
    return nonce


def let_in(server: LocalServer, client_id: str) -> Wire:
    wire = Wire(server.port)
    wire.send(packets.connect(client_id, values=said(b"ada")))
    nonce = prove(wire)
    connack = wire.expect(CONNACK)
    assert connack.code == 0
    assert data_of(connack) == server_proof(KEY, nonce)
    return wire


def test_a_challenge_is_answered_and_answered_again(
    server: LocalServer, authenticator: SlowAuthenticator
) -> None:
    with let_in(server, "c") as wire:
        wire.subscribe("t", 1)
        wire.send(packets.auth(BEGIN, said(b"ada")))
        nonce = prove(wire)
        done = wire.expect(AUTH)
        assert (done.code, data_of(done)) == (0, server_proof(KEY, nonce))
        wire.publish("t", b"x", 0)
        assert contents(wire.messages(1)) == [b"x"]
        wire.send(packets.auth(BEGIN, said(b"ada")))
        wire.expect(AUTH)
        wire.send(packets.auth(GO_ON, said(b"guess")))
        (goodbye,) = wire.until_closed()
        assert (goodbye.kind, goodbye.code) == (DISCONNECT, 0x87)
    assert authenticator.threads == {"holdfast-auth"}


@pytest.mark.spec("MQTT5-3.1.4-6")
@pytest.mark.parametrize("level", [V311, V5])
@pytest.mark.parametrize("password", ["a key", "wrong"])
def test_everyone_else_is_served_while_a_slow_answer_is_awaited(
    server: LocalServer, authenticator: SlowAuthenticator, level: int, password: str
) -> None:
    """What the client sends behind its CONNECT, much of it, waits; then it counts or does not."""
    with let_in(server, "other") as other, Wire(server.port, level) as wire:
        other.subscribe("t", 1)
        authenticator.may_answer.clear()
        wire.send(
            packets.connect("c", level, user="ada", password=password),
            packets.publish("t", bytes(100_000), level, qos=1, packet_id=1),
        )
        other.publish("other", b"x")
        wire.send(packets.publish("t", bytes(100_000), level, qos=1, packet_id=2))
        other.publish("t", b"served")
        assert contents(other.messages(1)) == [b"served"]
        authenticator.may_answer.set()
        connack = wire.expect(CONNACK)
        if password == "a key":
            assert connack.code == 0
            assert [wire.expect(PUBACK).packet_id for _ in range(2)] == [1, 2]
            assert len(other.messages(2)) == 2
        else:
            assert connack.code == (0x86 if level == V5 else 4)
            assert wire.until_closed() == []
            other.publish("t", b"nothing else")
            assert contents(other.messages(1)) == [b"nothing else"]


def test_an_authenticator_that_fails_refuses_one_client_alone(
    server: LocalServer, caplog: pytest.LogCaptureFixture
) -> None:
    with Wire(server.port) as wire:
        wire.send(packets.connect("c", values=said(b"defect")))
        (connack,) = wire.until_closed()
        assert (connack.kind, connack.code) == (CONNACK, 0x88)
    with let_in(server, "d") as wire:
        wire.goodbye()
    assert "the directory cannot be reached" in caplog.text


class ConfusedAuthenticator(ChallengeAuthenticator):
    """Answers with what it was asked."""

    def step(self, request: AuthRequest) -> AuthReply:
        return cast(AuthReply, request.password)


def test_what_an_authenticator_answers_wrongly_is_not_repeated(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with LocalServer(ConfusedAuthenticator({})) as server, Wire(server.port) as wire:
        wire.send(packets.connect("a", user="ada", password="geheim"))
        (connack,) = wire.until_closed()
        assert (connack.kind, connack.code) == (CONNACK, 0x88)
    assert "expected an AuthReply, got a bytes" in caplog.text
    assert "geheim" not in caplog.text


def test_no_work_is_done_for_a_client_that_has_gone(
    server: LocalServer, authenticator: SlowAuthenticator
) -> None:
    authenticator.may_answer.clear()
    with Wire(server.port) as first, Wire(server.port) as gone:
        first.send(packets.connect("first", values=said(b"ada")))
        assert authenticator.has_to_wait.wait(PATIENCE_S)
        gone.send(packets.connect("gone", values=said(b"ada")), packets.disconnect())
        assert gone.until_closed() == []
        authenticator.may_answer.set()
        prove(first)
        assert first.expect(CONNACK).code == 0
    assert {request.client_id for request in authenticator.requests} == {"first"}


def test_a_stop_does_not_wait_for_an_answer(authenticator: SlowAuthenticator) -> None:
    authenticator.may_answer.clear()
    with LocalServer(authenticator) as server, Wire(server.port) as wire:
        wire.send(packets.connect("c", values=said(b"ada")))
        assert authenticator.has_to_wait.wait(PATIENCE_S)
        server.stop()
        assert wire.until_closed() == []
    authenticator.may_answer.set()
