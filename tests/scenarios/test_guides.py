"""The guides, typed through as a new user would."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from holdfast.config import load_settings
from tests.support.broker import BrokerProcess
from tests.support.guides import Reader, blocks


@pytest.mark.parametrize("guide", ["tokens.md", "scram.md"])
def test_a_guide_works_as_it_is_written(guide: str, tmp_path: Path) -> None:
    """The first settings are the broker's; an output shown behind a command is what it prints."""
    folder = tmp_path / "etc"
    folder.mkdir()
    reader = Reader(folder)
    printed: str | None = None
    ran = 0
    with ExitStack() as stack:
        for language, text in blocks(guide):
            if language == "text":
                assert printed in (text, None)
            elif language != "toml":
                printed = reader.run(language, text)
                ran += 1
                continue
            elif reader.port == 0:
                broker = BrokerProcess(tmp_path / "data", store="memory", toml=reader.here(text))
                reader.port = stack.enter_context(broker).port
            else:
                file = folder / "holdfast.toml"
                file.write_text(reader.here(text))
                load_settings(config_file=file)
            printed = None
    assert ran >= 2
