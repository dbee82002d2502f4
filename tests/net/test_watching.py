"""Files that change: when they count as changed, and what a wrong one does."""

import logging
import os
from pathlib import Path

import pytest

from holdfast.errors import ConfigError
from holdfast.net.watching import Watcher


class Number:
    """A number in a file."""

    def __init__(self, name: str, file: Path) -> None:
        self.name = name
        self.file = file
        self.value = -1
        self.readings = 0

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.file,)

    def reload(self) -> None:
        self.readings += 1
        try:
            self.value = int(self.file.read_text())
        except OSError as error:
            raise ConfigError(f"{self.file}: cannot be read") from error
        except ValueError as error:
            raise ConfigError(f"{self.file}, line 1: expected a number") from error


@pytest.fixture
def part(tmp_path: Path) -> Number:
    file = tmp_path / "number"
    file.write_text("1")
    part = Number("number", file)
    part.reload()
    return part


def test_a_changed_file_is_read_when_it_has_come_to_rest(part: Number) -> None:
    watcher = Watcher([part])
    assert not watcher.look()
    part.file.write_text("22")
    assert not watcher.look()  # it may still be written
    part.file.write_text("333")
    assert not watcher.look()
    assert watcher.look()
    assert (part.value, part.readings) == (333, 2)
    assert not watcher.look()
    assert part.readings == 2


def test_a_file_put_in_the_place_of_another_of_the_same_size_and_time_is_seen(
    part: Number, tmp_path: Path
) -> None:
    watcher = Watcher([part])
    other = tmp_path / "other"
    other.write_text("7")
    found = os.stat(part.file)
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.replace(part.file)
    assert [watcher.look(), watcher.look()] == [False, True]
    assert part.value == 7


def test_what_changed_between_start_and_first_look_is_seen(part: Number) -> None:
    watcher = Watcher([part])
    part.file.write_text("20")
    part.reload()  # as at the start
    part.file.write_text("300")
    assert [watcher.look(), watcher.look()] == [False, True]
    assert part.value == 300


def test_a_wrong_file_leaves_what_was_there_and_one_line(
    part: Number, caplog: pytest.LogCaptureFixture
) -> None:
    watcher = Watcher([part])
    part.file.write_text("many")
    with caplog.at_level(logging.ERROR, "holdfast"):
        assert not any(watcher.look() for _ in range(5))
    assert part.value == 1
    assert caplog.messages == [
        f"number: what was read before stays: {part.file}, line 1: expected a number"
    ]
    part.file.unlink()
    assert not any(watcher.look() for _ in range(5))
    assert len(caplog.messages) == 2
    part.file.write_text("4")
    assert any(watcher.look() for _ in range(2))
    assert part.value == 4


def test_a_forced_look_reads_everything_at_once(
    part: Number, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Defect(Number):
        def reload(self) -> None:
            raise RuntimeError("a defect")

    other = Number("other", tmp_path / "number")
    watcher = Watcher([Defect("defect", tmp_path / "none"), part, other])
    part.file.write_text("5")
    assert watcher.look(is_forced=True)
    assert (part.value, other.value) == (5, 5)
    assert "a defect" in caplog.text
    assert not watcher.look()


def test_news_of_another_kind_count_as_a_change(part: Number) -> None:
    news = [True, False]
    watcher = Watcher([part], lambda: news.pop(0))
    assert [watcher.look(), watcher.look()] == [True, False]
    assert part.readings == 1


def test_files_are_looked_at_though_nobody_can_tell_the_news(
    part: Number, caplog: pytest.LogCaptureFixture
) -> None:
    def failing() -> bool:
        raise RuntimeError("a defect")

    watcher = Watcher([part], failing)
    part.file.write_text("5")
    assert [watcher.look(), watcher.look()] == [False, True]
    assert "a defect" in caplog.text
