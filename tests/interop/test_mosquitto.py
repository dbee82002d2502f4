"""Our clients with Mosquitto, which is not ours."""

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from holdfast import Client, Refused, SyncClient, TlsOptions, Will
from holdfast.client.options import Version
from tests.support.listening import Authority
from tests.support.mosquitto import Mosquitto
from tests.support.process import PATIENCE_S

VERSIONS = pytest.mark.parametrize("version", ["5.0", "3.1.1"])
QOS = pytest.mark.parametrize("qos", [0, 1, 2])


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def mosquitto(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[Mosquitto]:
    certificate = authority.issue("server", "localhost", "127.0.0.1")
    tls = [f"cafile {authority.file}", f"certfile {certificate}"]
    tls.append(f"keyfile {certificate.with_suffix('.key')}")
    listeners = {
        "mqtt": (),
        "mqtts": tls,
        "mutual": [*tls, "require_certificate true"],
        "ws": ["protocol websockets"],
        "wss": ["protocol websockets", *tls],
    }
    with Mosquitto(tmp_path_factory.mktemp("mosquitto"), listeners=listeners) as broker:
        yield broker


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Mosquitto]:
    """A Mosquitto for this test alone."""
    with Mosquitto(tmp_path / "mosquitto") as broker:
        yield broker


# --- messages


@VERSIONS
@QOS
def test_every_qos(mosquitto: Mosquitto, name: str, version: Version, qos: int) -> None:
    async def live() -> None:
        async with Client(mosquitto.url, version=version) as client:
            messages = await client.subscribe(f"{name}/+", qos=qos)
            assert messages.reason_codes == [qos]
            receipts = [await client.publish(f"{name}/{i}", str(i), qos=qos) for i in range(200)]
            texts = [(await messages.get(PATIENCE_S)).text for _ in receipts]
            assert texts == [str(i) for i in range(200)]
            for receipt in receipts:
                await receipt
            await client.drain(PATIENCE_S)

    asyncio.run(live())


@VERSIONS
@QOS
def test_every_qos_without_asyncio(
    mosquitto: Mosquitto, name: str, version: Version, qos: int
) -> None:
    with SyncClient(mosquitto.url, version=version) as client:
        messages = client.subscribe(f"{name}/#", qos=qos)
        receipts = [client.publish(f"{name}/a", str(i), qos=qos) for i in range(200)]
        assert [messages.get(PATIENCE_S).text for _ in receipts] == [str(i) for i in range(200)]
        for receipt in receipts:
            receipt.wait(PATIENCE_S)


@VERSIONS
@pytest.mark.parametrize("size", [0, 1_000_000])
def test_empty_and_large(mosquitto: Mosquitto, name: str, version: Version, size: int) -> None:
    with SyncClient(mosquitto.url, version=version) as client:
        messages = client.subscribe(name, qos=2)
        client.publish(name, b"x" * size, qos=2).wait(PATIENCE_S)
        assert messages.get(PATIENCE_S).payload == b"x" * size


@VERSIONS
def test_retained(mosquitto: Mosquitto, name: str, version: Version) -> None:
    with SyncClient(mosquitto.url, version=version) as client:
        client.publish(f"{name}/a", "kept", qos=1, retain=True).wait(PATIENCE_S)
        with client.subscribe(f"{name}/+", qos=1) as messages:
            message = messages.get(PATIENCE_S)
            assert (message.text, message.retain) == ("kept", True)
            client.publish(f"{name}/a", "", qos=1, retain=True)
            assert not messages.get(PATIENCE_S).retain
        with client.subscribe(f"{name}/#", qos=1) as messages:
            client.publish(f"{name}/b", "end", qos=1)
            assert messages.get(PATIENCE_S).text == "end"


@VERSIONS
def test_a_will(mosquitto: Mosquitto, name: str, version: Version) -> None:
    code = f"""
        import os, sys
        from holdfast import SyncClient, Will
        will = Will(topic={name!r}, payload="gone", qos=1)
        SyncClient({mosquitto.url!r}, version={version!r}, will=will).open()
        os._exit(0)
    """
    with SyncClient(mosquitto.url) as client, client.subscribe(name, qos=1) as messages:
        subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
        assert messages.get(PATIENCE_S).text == "gone"
        with SyncClient(mosquitto.url, version=version, will=Will(topic=name, payload="never")):
            pass
        client.publish(name, "end", qos=1)
        assert messages.get(PATIENCE_S).text == "end"


def test_a_will_on_purpose(mosquitto: Mosquitto, name: str) -> None:
    with SyncClient(mosquitto.url) as client, client.subscribe(name, qos=1) as messages:
        other = SyncClient(mosquitto.url, will=Will(topic=name, payload="gone", qos=1))
        other.open()
        other.close(with_will=True)
        assert messages.get(PATIENCE_S).text == "gone"


@VERSIONS
def test_overlapping_wildcards(mosquitto: Mosquitto, name: str, version: Version) -> None:
    with (
        SyncClient(mosquitto.url, version=version) as client,
        client.subscribe(f"{name}/+/c", qos=1) as plus,
        client.subscribe(f"{name}/#", qos=2) as hash_,
        client.subscribe(f"{name}/a/d") as none,
    ):
        client.publish(f"{name}/a/c", "1", qos=1)
        client.publish(f"{name}/a/c/e", "2", qos=1)
        client.publish(f"{name}/a/d", "3", qos=0)
        assert plus.get(PATIENCE_S).text == "1"
        texts = [hash_.get(PATIENCE_S).text]
        while texts[-1] != "3":
            texts.append(hash_.get(PATIENCE_S).text)
        assert sorted(set(texts)) == ["1", "2", "3"]
        assert none.get(PATIENCE_S).text == "3"


@VERSIONS
def test_a_shared_subscription(mosquitto: Mosquitto, name: str, version: Version) -> None:
    with (
        SyncClient(mosquitto.url, version=version) as one,
        SyncClient(mosquitto.url, version=version) as two,
        one.subscribe(f"$share/{name}/{name}/#", qos=1) as first,
        two.subscribe(f"$share/{name}/{name}/#", qos=1) as second,
    ):
        for i in range(40):
            one.publish(f"{name}/{i}", str(i), qos=1)
        one.drain(PATIENCE_S)
        taken = [first.get(PATIENCE_S).text for _ in range(20)]
        taken += [second.get(PATIENCE_S).text for _ in range(20)]
        assert sorted(taken, key=int) == [str(i) for i in range(40)]


def test_the_properties_of_5_0(mosquitto: Mosquitto, name: str) -> None:
    with SyncClient(mosquitto.url) as client, client.subscribe(name, qos=1) as messages:
        client.publish(
            name,
            "text",
            qos=1,
            message_expiry_interval=100,
            content_type="text/plain",
            response_topic="an/answer",
            correlation_data=b"\0\1",
            user_properties=[("a", "1"), ("a", "2")],
            payload_format_indicator=1,
        )
        message = messages.get(PATIENCE_S)
    assert message.message_expiry_interval in (99, 100)
    assert (message.content_type, message.payload_format_indicator) == ("text/plain", 1)
    assert (message.response_topic, message.correlation_data) == ("an/answer", b"\0\1")
    assert message.user_properties == [("a", "1"), ("a", "2")]


def test_topic_aliases(mosquitto: Mosquitto, name: str) -> None:
    with SyncClient(mosquitto.url, use_topic_aliases=True, topic_alias_maximum=5) as client:
        messages = client.subscribe(f"{name}/#", qos=1)
        sent = [(f"{name}/{i % 15}", str(i)) for i in range(60)]
        for topic, text in sent:
            client.publish(topic, text, qos=1)
        taken = [messages.get(PATIENCE_S) for _ in sent]
        assert [(message.topic, message.text) for message in taken] == sent


def test_a_request(mosquitto: Mosquitto, name: str) -> None:
    with SyncClient(mosquitto.url) as server, SyncClient(mosquitto.url) as client:
        requests = server.subscribe(name, qos=1)

        def serve() -> None:
            request = requests.get(PATIENCE_S)
            assert request.response_topic is not None
            server.publish(request.response_topic, "4", correlation_data=request.correlation_data)

        with ThreadPoolExecutor(1) as pool:
            served = pool.submit(serve)
            assert client.request(name, "2+2", timeout_s=PATIENCE_S).text == "4"
            served.result(PATIENCE_S)


def test_more_than_receive_maximum(mosquitto: Mosquitto, name: str) -> None:
    """It sends all that it has queued when the first message is acknowledged."""
    with (
        SyncClient(mosquitto.url, receive_maximum=10, manual_ack=True) as client,
        SyncClient(mosquitto.url) as other,
    ):
        messages = client.subscribe(name, qos=1)
        for i in range(200):
            other.publish(name, str(i), qos=1)
        other.drain(PATIENCE_S)
        for i in range(200):
            message = messages.get(PATIENCE_S)
            assert (message.text, message.dup) == (str(i), False)
            message.ack()


# --- sessions


@VERSIONS
@pytest.mark.parametrize("qos", [1, 2])
def test_a_session_over_its_restart(own: Mosquitto, name: str, version: Version, qos: int) -> None:
    with SyncClient(own.url, client_id=name, version=version) as client:
        client.subscribe(f"{name}/#", qos=qos)
    with SyncClient(own.url) as other:
        for i in range(20):
            other.publish(f"{name}/a", str(i), qos=qos)
    own.stop()
    own.start()
    with SyncClient(own.url, client_id=name, version=version) as client:
        assert client.connack is not None
        assert client.connack.session_present
        kept = client.messages()
        assert [kept.get(PATIENCE_S).text for _ in range(20)] == [str(i) for i in range(20)]


@VERSIONS
@pytest.mark.parametrize("is_killed", [False, True])
def test_it_comes_back(own: Mosquitto, name: str, version: Version, is_killed: bool) -> None:
    """A Mosquitto that was killed has forgotten the session; then the client subscribes again."""
    with SyncClient(own.url, client_id=name, version=version) as client:
        messages = client.subscribe(name, qos=2)
        client.publish(name, "before", qos=2)
        assert messages.get(PATIENCE_S).text == "before"
        client.drain(PATIENCE_S)
        if is_killed:
            own.kill9()
        else:
            own.stop()
        receipt = client.publish(name, "after", qos=2)
        own.start()
        receipt.wait(PATIENCE_S)
        assert messages.get(PATIENCE_S).text == "after"


@VERSIONS
def test_an_outbox_goes_out_later(
    own: Mosquitto, name: str, version: Version, tmp_path: Path
) -> None:
    own.stop()
    outbox = tmp_path / "outbox.db"
    for text in "ab":
        with SyncClient(own.url, outbox=outbox, version=version) as client:
            client.publish(name, text, qos=2)
            assert client.outbox.messages == "ab".index(text) + 1
    own.start()
    with SyncClient(own.url) as other, other.subscribe(name, qos=2) as messages:
        with SyncClient(own.url, outbox=outbox, version=version) as client:
            client.drain(PATIENCE_S)
            client.publish(name, "c", qos=2)
        assert [messages.get(PATIENCE_S).text for _ in range(3)] == ["a", "b", "c"]


# --- other ways in


@pytest.mark.parametrize("listener", ["mqtts", "ws", "wss"])
@VERSIONS
def test_tls_and_websocket(
    mosquitto: Mosquitto, authority: Authority, name: str, version: Version, listener: str
) -> None:
    url = f"{listener}://localhost:{mosquitto.ports[listener]}"
    tls = TlsOptions(ca_file=authority.file) if listener != "ws" else None
    with SyncClient(url, version=version, tls=tls) as client:
        messages = client.subscribe(name, qos=2)
        for i in range(50):
            client.publish(name, f"{i}" * 1000, qos=2)
        assert [messages.get(PATIENCE_S).text for _ in range(50)] == [
            f"{i}" * 1000 for i in range(50)
        ]


def test_a_certificate_of_the_client(mosquitto: Mosquitto, authority: Authority, name: str) -> None:
    certificate = authority.issue("client", "meter")
    url = f"mqtts://localhost:{mosquitto.ports['mutual']}"
    tls = TlsOptions(
        ca_file=authority.file,
        certificate=certificate,
        key=certificate.with_suffix(".key"),
    )
    with SyncClient(url, tls=tls) as client:
        client.publish(name, qos=1).wait(PATIENCE_S)


@VERSIONS
def test_a_password(tmp_path: Path, version: Version) -> None:
    passwords = tmp_path / "passwords"
    made = ["mosquitto_passwd", "-b", "-c", str(passwords), "meter", "secret"]
    subprocess.run(made, check=True)
    settings = ["allow_anonymous false", f"password_file {passwords}"]
    with Mosquitto(tmp_path / "mosquitto", settings=settings) as broker:
        url = broker.url.replace("://", "://meter:secret@")
        with SyncClient(url, version=version) as client:
            client.publish("a", qos=1).wait(PATIENCE_S)
        with (
            pytest.raises(Refused) as refused,
            SyncClient(broker.url, version=version, user_name="meter", password="wrong"),
        ):
            pass
        assert refused.value.reason_code in (0x86, 0x87)
