"""The pytest plug-in: brokers for the tests of whoever speaks MQTT.

pytest loads it at the start of every run where Holdfast is installed, so it imports nothing by
itself: the broker comes with the first test that asks for one. The brokers run on threads of their
own, so that tests may be plain functions or coroutines, on whatever event loop.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Protocol

import pytest

if TYPE_CHECKING:
    from holdfast import SyncServer
    from holdfast.config import Settings

__all__ = ["BrokerFactory"]

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
