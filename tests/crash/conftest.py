"""Brokers whose disk and clock a test controls."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.faulty import FaultyBroker, NewFaultyBroker


@pytest.fixture
def faulty_broker(tmp_path: Path) -> Iterator[NewFaultyBroker]:
    """Start a broker for this test alone, whose disk fails and whose clock is set on command."""
    with ExitStack() as stack:

        def start(settings: Mapping[str, str | int] | None = None) -> FaultyBroker:
            return stack.enter_context(FaultyBroker(tmp_path / "data", settings=settings))

        yield start
