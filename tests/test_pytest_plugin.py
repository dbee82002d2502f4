"""The pytest plug-in, in small projects of users: tests that are functions or coroutines."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.support.project import UserProject

# What every project here is strict about, so that the plug-in is seen to warn of nothing.
STRICT: Final = ("-q", "-W", "error", "--strict-markers", "--strict-config")

NewProject = Callable[..., UserProject]

PAHO: Final = '''
    import threading
    import paho.mqtt.client as paho

    def echo(port, topic, payload):
        """What comes back of a message."""
        came, found = threading.Event(), []
        client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        client.on_subscribe = lambda *_: client.publish(topic, payload, 1)
        client.on_message = lambda _client, _data, m: (found.append(m.payload), came.set())
        client.connect("127.0.0.1", port)
        client.subscribe(topic, 1)
        client.loop_start()
        assert came.wait(15)
        client.disconnect()
        client.loop_stop()
        return found
'''


@pytest.fixture
def project(tmp_path: Path) -> NewProject:
    """Makes the project."""

    def make(*plug_ins: str) -> UserProject:
        made = UserProject(tmp_path / "project", plug_ins=plug_ins, arguments=STRICT)
        made.write("clients.py", PAHO)
        return made

    return make


def test_brokers_for_functions(project: NewProject) -> None:
    own = project()
    own.write(
        "conftest.py",
        """
        import pytest

        @pytest.fixture(scope="session")
        def mqtt_broker_settings():
            return {"maximum_qos": 1, "client_connects_max": 100}
        """,
    )
    own.write(
        "test_own.py",
        """
        import holdfast, pytest
        from clients import echo

        ports = []

        @pytest.mark.parametrize("number", range(3))
        def test_fresh(mqtt_broker, number):
            assert mqtt_broker.url == f"mqtt://127.0.0.1:{mqtt_broker.port}"
            assert echo(mqtt_broker.port, "a/b", b"1") == [b"1"]
            mqtt_broker.restart()
            assert echo(mqtt_broker.port, "a/b", b"1") == [b"1"]
            ports.append(mqtt_broker.port)

        @pytest.mark.parametrize("number", range(3))
        def test_shared(mqtt_broker_session, mqtt_broker, number):
            assert mqtt_broker_session.port != mqtt_broker.port
            ports.append(mqtt_broker_session.port)
            assert set(ports[3:]) == {mqtt_broker_session.port}
            assert echo(mqtt_broker_session.port, "a/b", b"1") == [b"1"]

        def test_several(mqtt_broker_factory, tmp_path):
            one = mqtt_broker_factory(data_dir=tmp_path / "data")
            other = mqtt_broker_factory(settings={"maximum_qos": 2})
            assert echo(one.port, "a/b", b"1") == [b"1"]
            assert echo(other.port, "a/b", b"2") == [b"2"]
            assert (tmp_path / "data" / "holdfast.db").exists()
            with pytest.raises(holdfast.StoreLocked):
                mqtt_broker_factory(data_dir=tmp_path / "data")

        def test_settings(mqtt_broker, mqtt_broker_settings):
            assert mqtt_broker_settings == {"maximum_qos": 1, "client_connects_max": 100}
        """,
    )
    assert own.run() == {"passed": 8}


def test_clients_for_functions(project: NewProject) -> None:
    own = project()
    own.write(
        "conftest.py",
        """
        import pytest

        @pytest.fixture(scope="session")
        def mqtt_client_options():
            return {"version": "3.1.1", "keep_alive_s": 7}
        """,
    )
    own.write(
        "test_own.py",
        """
        import holdfast, pytest

        shared = []

        @pytest.mark.parametrize("number", range(3))
        def test_fresh(mqtt_broker, mqtt_client, number):
            readings = mqtt_client.subscribe("a/#", qos=2)
            mqtt_client.publish("a/b", b"%d" % number, qos=2).wait(5)
            assert readings.get(5).payload == b"%d" % number
            mqtt_broker.restart()
            mqtt_client.publish("a/b", b"again", qos=2).wait(5)
            assert readings.get(5).payload == b"again"

        @pytest.mark.parametrize("number", range(3))
        def test_shared(mqtt_client_session, mqtt_client, number):
            shared.append(mqtt_client_session)
            assert shared[0] is mqtt_client_session is not mqtt_client
            mqtt_client_session.publish("a/b", b"1", qos=1).wait(5)

        def test_several(mqtt_client_factory, mqtt_broker_factory, mqtt_client):
            one, other = mqtt_client_factory(client_id="one"), mqtt_client_factory()
            assert one.client_id == "one"
            readings = one.subscribe("a/#", qos=1), mqtt_client.subscribe("a/#")
            other.publish("a/b", b"1", qos=1).wait(5)
            assert [reading.get(5).payload for reading in readings] == [b"1", b"1"]
            elsewhere = mqtt_client_factory(mqtt_broker_factory().url)
            elsewhere.publish("a/b", b"2", qos=1).wait(5)

        def test_gone(mqtt_broker, mqtt_client):
            mqtt_broker.stop()
            mqtt_client.publish("a/b", b"1", qos=1)  # which nobody waits for

        def test_refused(mqtt_broker_factory, mqtt_client_factory):
            broker = mqtt_broker_factory(settings={"connections_max": 1})
            mqtt_client_factory(broker.url)
            with pytest.raises(holdfast.HoldfastError):
                mqtt_client_factory(broker.url)

        def test_options(mqtt_client_options, mqtt_async_client):
            assert mqtt_client_options["version"] == "3.1.1"
        """,
    )
    assert own.run() == {"passed": 10}


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_brokers_for_pytest_asyncio(project: NewProject, mode: str) -> None:
    own = project("asyncio")
    mark = "pytestmark = pytest.mark.asyncio" if mode == "strict" else ""
    own.write(
        "test_own.py",
        f"""
        import holdfast, pytest, pytest_asyncio

        {mark}

        @pytest_asyncio.fixture
        async def client(mqtt_broker):
            async with holdfast.Client(mqtt_broker.url) as client:
                yield client

        async def test_fresh(client, mqtt_broker):
            messages = await client.subscribe("a/#", qos=2)
            for _ in range(2):
                await (await client.publish("a/b", b"1", qos=2))
                assert (await anext(messages)).payload == b"1"
                mqtt_broker.restart()

        async def test_entered(mqtt_async_client, mqtt_client):
            async with mqtt_async_client as client:
                messages = await client.subscribe("a/#", qos=1)
                mqtt_client.publish("a/b", b"1", qos=1).wait(5)
                assert (await anext(messages)).payload == b"1"

        async def test_shared(mqtt_broker_session):
            async with holdfast.Client(mqtt_broker_session.url) as client:
                await (await client.publish("a/b", b"1", qos=1))

        async def test_in_the_loop():
            async with holdfast.Server() as server, holdfast.Client(server.url) as client:
                await (await client.publish("a/b", b"1", qos=1))
        """,
    )
    options = (f"asyncio_mode={mode}", "asyncio_default_fixture_loop_scope=function")
    assert own.run(*(word for option in options for word in ("-o", option))) == {"passed": 4}


def test_brokers_for_anyio(project: NewProject) -> None:
    own = project("anyio")
    own.write(
        "test_own.py",
        """
        import holdfast, pytest

        pytestmark = pytest.mark.anyio

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.fixture
        async def client(mqtt_broker):
            async with holdfast.Client(mqtt_broker.url) as client:
                yield client

        async def test_entered(mqtt_async_client):
            async with mqtt_async_client as client:
                await (await client.publish("a/b", b"1", qos=1))

        async def test_fresh(client):
            messages = await client.subscribe("a/#", qos=2)
            await (await client.publish("a/b", b"1", qos=2))
            assert (await anext(messages)).payload == b"1"
        """,
    )
    assert own.run() == {"passed": 2}


def test_a_run_without_brokers_loads_nothing(project: NewProject) -> None:
    own = project()
    own.write(
        "test_own.py",
        """
        import sys, threading

        SERVER_SIDE = "apsw argon2 asyncio cryptography pydantic ssl uvloop".split()

        def test_nothing():
            assert [name for name in SERVER_SIDE if name in sys.modules] == []
            loaded = {name for name in sys.modules if name.startswith("holdfast.")}
            assert loaded - {"holdfast.errors", "holdfast.pytest_plugin"} == set()
            assert threading.active_count() == 1
        """,
    )
    assert own.run() == {"passed": 1}


def test_a_broker_that_cannot_start_is_an_error_of_the_test(project: NewProject) -> None:
    own = project()
    own.write(
        "test_own.py",
        """
        import pytest

        @pytest.fixture
        def mqtt_broker_settings():
            return {"maximum_kos": 1}

        def test_nothing(mqtt_broker):
            pass
        """,
    )
    assert own.run() == {"error": 1}


def test_the_fixtures_are_listed_with_what_they_are(
    project: NewProject, capfd: pytest.CaptureFixture[str]
) -> None:
    own = project()
    own.run("--fixtures", "-v")
    listed = capfd.readouterr().out
    in_session, in_test = "mqtt_{}_session [session scope]", "mqtt_{}"
    for name in (in_test, in_session, "mqtt_{}_factory"):
        for what in ("broker", "client"):
            assert f"\n{name.format(what)} -- " in listed
