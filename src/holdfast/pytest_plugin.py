"""The pytest plug-in: brokers and clients for the tests of whoever speaks MQTT.

pytest loads it at the start of every run where Holdfast is installed, so it imports nothing by
itself: the broker comes with the first test that asks for one. The brokers run on threads of their
own, so that tests may be plain functions or coroutines, on whatever event loop.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Protocol, Unpack

import pytest

if TYPE_CHECKING:
    from holdfast import Client, SyncClient, SyncServer
    from holdfast.client.options import ClientOptions
    from holdfast.config import Settings

__all__ = ["BrokerFactory", "ClientFactory"]

# What protects a broker from clients that run wild would only surprise those who test.
_DEFAULTS: Final[Mapping[str, object]] = {"client_connects_max": 0, "client_takeovers_max": 0}


class BrokerFactory(Protocol):
    """Starts brokers; see the fixture ``mqtt_broker_factory``."""

    def __call__(
        self,
        *,
        host: str | None = None,
        port: int | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        settings: "Settings | Mapping[str, object] | None" = None,
    ) -> "SyncServer": ...


class ClientFactory(Protocol):
    """Makes connected clients; see the fixture ``mqtt_client_factory``."""

    def __call__(self, url: str = "", **options: "Unpack[ClientOptions]") -> "SyncClient": ...


@pytest.fixture(scope="session")
def mqtt_broker_settings() -> Mapping[str, object]:
    """The settings of mqtt_broker and mqtt_broker_session: define it anew to have others."""
    return {}


@pytest.fixture
def mqtt_broker(mqtt_broker_settings: Mapping[str, object]) -> Iterator["SyncServer"]:
    """A fresh MQTT broker for this test alone: mqtt_broker.url, .port, .restart(), ..."""
    with _make_broker(settings=mqtt_broker_settings) as broker:
        yield broker


@pytest.fixture(scope="session")
def mqtt_broker_session(mqtt_broker_settings: Mapping[str, object]) -> Iterator["SyncServer"]:
    """An MQTT broker for all tests together, with whatever the tests before have left in it."""
    with _make_broker(settings=mqtt_broker_settings) as broker:
        yield broker


@pytest.fixture
def mqtt_broker_factory() -> Iterator[BrokerFactory]:
    """Starts further MQTT brokers, with the arguments of holdfast.Server, until the test ends."""
    with ExitStack() as brokers:

        def make(
            *,
            host: str | None = None,
            port: int | None = None,
            data_dir: str | os.PathLike[str] | None = None,
            settings: "Settings | Mapping[str, object] | None" = None,
        ) -> "SyncServer":
            broker = _make_broker(host=host, port=port, data_dir=data_dir, settings=settings)
            return brokers.enter_context(broker)

        yield make


@pytest.fixture(scope="session")
def mqtt_client_options() -> "ClientOptions":
    """The options of all clients here, a password for instance: define it anew to have others."""
    return {}


@pytest.fixture
def mqtt_client(
    mqtt_broker: "SyncServer", mqtt_client_options: "ClientOptions"
) -> Iterator["SyncClient"]:
    """A connected holdfast.SyncClient of mqtt_broker, for tests that are functions."""
    with ExitStack() as clients:
        yield _open_client(clients, mqtt_broker.url, mqtt_client_options)


@pytest.fixture(scope="session")
def mqtt_client_session(
    mqtt_broker_session: "SyncServer", mqtt_client_options: "ClientOptions"
) -> Iterator["SyncClient"]:
    """A connected holdfast.SyncClient of mqtt_broker_session, for all tests together."""
    with ExitStack() as clients:
        yield _open_client(clients, mqtt_broker_session.url, mqtt_client_options)


@pytest.fixture
def mqtt_client_factory(
    mqtt_broker: "SyncServer", mqtt_client_options: "ClientOptions"
) -> Iterator[ClientFactory]:
    """Connects further holdfast.SyncClients, with its arguments, to mqtt_broker or another URL."""
    with ExitStack() as clients:

        def make(url: str = "", **options: "Unpack[ClientOptions]") -> "SyncClient":
            return _open_client(clients, url or mqtt_broker.url, {**mqtt_client_options, **options})

        yield make


@pytest.fixture
def mqtt_async_client(mqtt_broker: "SyncServer", mqtt_client_options: "ClientOptions") -> "Client":
    """A holdfast.Client of mqtt_broker, for coroutines to enter: async with mqtt_async_client."""
    from holdfast import Client

    return Client(mqtt_broker.url, **mqtt_client_options)


def _open_client(clients: ExitStack, url: str, options: "ClientOptions") -> "SyncClient":
    from holdfast import SyncClient

    client = SyncClient(url, **options)
    client.open()
    # Whoever wants to know that a message is out waits for it: the end of a test does not, as its
    # broker may be stopped.
    clients.callback(client.close, is_orderly=False)
    return client


def _make_broker(
    *,
    host: str | None = None,
    port: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    settings: "Settings | Mapping[str, object] | None" = None,
) -> "SyncServer":
    from holdfast import SyncServer

    if settings is None or isinstance(settings, Mapping):
        settings = {**_DEFAULTS, **(settings or {})}
    return SyncServer(host=host, port=port, data_dir=data_dir, settings=settings)
