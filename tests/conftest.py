"""What the tests share: the brokers of the end-to-end tests."""

import itertools
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.broker import BrokerProcess, NewBroker
from tests.support.wire import LEVEL_NAMES, LEVELS, Dial, Wire

_numbers = itertools.count(1)


@pytest.fixture(params=LEVELS, ids=LEVEL_NAMES)
def level(request: pytest.FixtureRequest) -> int:
    """The Protocol Level: the test runs once for each version of MQTT."""
    level: int = request.param
    return level


@pytest.fixture
def name() -> str:
    """A name that no other test uses, for client identifiers and topics on a shared broker."""
    return f"n{next(_numbers)}"


@pytest.fixture(scope="module")
def _module_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    with BrokerProcess(tmp_path_factory.mktemp("broker") / "data") as broker:
        yield broker


@pytest.fixture
def broker(_module_broker: BrokerProcess) -> Iterator[BrokerProcess]:
    """A running broker that the tests of one module share; it has to outlive each of them."""
    if not _module_broker.is_running:
        _module_broker.start()
    first = len(_module_broker.log_lines)
    yield _module_broker
    log = "\n".join(_module_broker.log_lines[first:])
    print(f"--- log of the broker during this test\n{log}\n---")
    assert _module_broker.is_running, "the broker ended during this test"
    assert "Traceback" not in log


@pytest.fixture
def new_broker(tmp_path: Path) -> Iterator[NewBroker]:
    """Start a broker for this test alone, which may kill it and start it again."""
    with ExitStack() as stack:

        def start(
            folder: str = "data",
            *,
            store: str | None = None,
            settings: Mapping[str, str | int | float] | None = None,
            toml: str = "",
        ) -> BrokerProcess:
            return stack.enter_context(
                BrokerProcess(tmp_path / folder, store=store, settings=settings, toml=toml)
            )

        yield start


@pytest.fixture
def dial() -> Iterator[Dial]:
    """Open raw connections, which are closed when the test is over."""
    with ExitStack() as stack:

        def connect(broker: BrokerProcess, level: int) -> Wire:
            return stack.enter_context(Wire(broker.port, level))

        yield connect
