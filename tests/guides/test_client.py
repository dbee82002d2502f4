"""The guides of the Python client, typed through: their programs run and print what they say."""

import re
import sys
from pathlib import Path

import pytest

from holdfast import SyncClient
from tests.support.broker import BrokerProcess
from tests.support.guide import Guide
from tests.support.process import Process

README = Path(__file__).parent.parent.parent / "README.md"

GUIDES = ["client.md", "outbox.md", "inbox.md", "connections.md", "mqtt5.md", "migrating.md"]


@pytest.mark.parametrize("name", GUIDES)
def test_the_guide_works_as_it_is_written(name: str, tmp_path: Path) -> None:
    with Guide(name, tmp_path) as guide:
        guide.follow()


def test_the_program_of_the_readme(broker: BrokerProcess, tmp_path: Path) -> None:
    url = f"mqtt://127.0.0.1:{broker.port}"
    found = re.search(r"^```python\n(.*?)^```", README.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert found is not None
    outbox = tmp_path / "meter.db"
    text = found[1].replace("mqtt://localhost", url).replace("meter.db", str(outbox))
    with SyncClient(url) as client, client.subscribe("meter/7", qos=2) as readings:
        client.publish("meter/7/commands", "open", qos=2, retain=True).wait(10)
        program = Process([sys.executable, "-u", "-c", text])
        program.wait_line("^meter/7/commands open$")
        assert readings.get(10).text == "42"
        program.kill9()
        assert outbox.exists()
