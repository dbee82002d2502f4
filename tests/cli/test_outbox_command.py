"""`holdfast outbox`: what is in an outbox file, whether it is sound, and its repair."""

import json
import time
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from holdfast.client.outbox import OutboxFile
from holdfast.client.records import HoldIncoming, ReleaseOutgoing, SetSession, StoreOutgoing
from tests.support.command import assert_one_line, holdfast

NAME: Final = "meter.db"


def fill(path: Path) -> OutboxFile:
    """An open outbox file with messages, the oldest two hours old."""
    file = OutboxFile(path)
    now_ms = time.time_ns() // 1_000_000
    queued_at_ms = now_ms - 7_200_000
    file.commit(
        [
            SetSession("meter-7", True),
            StoreOutgoing(3, "a/b", b"x" * 100, 1, True, b"", 0, queued_at_ms),
            ReleaseOutgoing(4, queued_at_ms),
            StoreOutgoing(5, "é\x1b[2J", b"", 2, False, b"", now_ms + 60_000, now_ms),
            *(
                StoreOutgoing(seq, "many", b"%d" % seq, 1, False, b"", 0, now_ms)
                for seq in range(6, 40)
            ),
            HoldIncoming(7, 1, True),
            HoldIncoming(8, 2, False),
        ]
    )
    return file


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    start = content.index(b"a/b") // 4096 * 4096
    content[start : start + 4096] = b"\xa5" * 4096
    path.write_bytes(content)


def test_show_tells_what_waits_while_the_client_runs(tmp_path: Path) -> None:
    with closing(fill(tmp_path / NAME)):
        done = holdfast("outbox", "show", NAME, folder=tmp_path)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[0] == (
        f"{NAME}: client 'meter-7'; 36 messages of 309 B to be sent, 1 sent, to be completed"
        " (QoS 2), the oldest 2 hours old, 2 identifiers of QoS 2 messages held"
    )
    assert lines[1].startswith("3: 20")
    assert lines[1].endswith("+00:00 QoS 1, retained a/b (100 bytes)")
    assert lines[2].endswith("QoS 2, received by the server")
    assert " QoS 2 é?[2J (0 bytes, expires 20" in lines[3]
    assert len(lines) == 22
    assert lines[-1] == "... and 17 more"


def test_show_as_json(tmp_path: Path) -> None:
    fill(tmp_path / NAME).close()
    done = holdfast("outbox", "show", NAME, "--top", "2", "--json", folder=tmp_path)
    found = json.loads(done.stdout)
    assert found["client_id"] == "meter-7"
    assert (found["messages"], found["bytes"], found["released"]) == (36, 309, 1)
    assert (found["held"], found["held_handed_over"]) == (2, 1)
    assert (found["next_seq"], found["next_delivery_id"]) == (40, 3)
    assert 7200 <= found["oldest_age_s"] < 7300
    assert [one["seq"] for one in found["outgoing"]] == [3, 4]
    assert found["outgoing"][0] | {"queued_at": ""} == {
        "seq": 3,
        "stage": "stored",
        "qos": 1,
        "retain": True,
        "topic": "a/b",
        "payload_bytes": 100,
        "queued_at": "",
        "expires_at": None,
    }
    assert "xxx" not in done.stdout


def test_a_new_outbox(tmp_path: Path) -> None:
    OutboxFile(tmp_path / NAME).close()
    done = holdfast("outbox", "show", NAME, folder=tmp_path)
    assert done.stdout == f"{NAME}: no client identifier yet; 0 messages of 0 B to be sent\n"


def test_check_and_repair_of_a_sound_file(tmp_path: Path) -> None:
    fill(tmp_path / NAME).close()
    done = holdfast("outbox", "check", NAME, folder=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith(f"{NAME}: sound; 36 messages of 309 B")
    done = holdfast("outbox", "repair", NAME, folder=tmp_path)
    assert done.returncode == 0
    assert done.stdout == (
        f"{tmp_path / NAME}: sound, and left as it is; 36 messages, 1 sent, 2 identifiers held\n"
    )
    found = json.loads(holdfast("outbox", "check", NAME, "--json", folder=tmp_path).stdout)
    assert found["is_sound"] is True


def test_a_damaged_file_is_told_and_repaired(tmp_path: Path) -> None:
    fill(tmp_path / NAME).close()
    damage(tmp_path / NAME)
    for tool in ("check", "show"):
        done = holdfast("outbox", tool, NAME, folder=tmp_path)
        assert_one_line(done, 5, f"{NAME}: .*`holdfast outbox repair`")
    done = holdfast("outbox", "repair", NAME, folder=tmp_path)
    assert done.returncode == 5, done.stderr
    assert "lost: rows of table outgoing from the first to the last" in done.stdout
    assert (
        f"{tmp_path / NAME}: repaired; kept 0 messages, 1 sent, 2 identifiers held" in done.stdout
    )
    assert f"the damaged file is {tmp_path / NAME}.damaged-" in done.stdout
    assert holdfast("outbox", "check", NAME, folder=tmp_path).returncode == 0
    with closing(OutboxFile(tmp_path / NAME)) as file:
        assert file.load().client_id == "meter-7"
        assert file.load().next_seq == 40
    damage_again = json.loads(holdfast("outbox", "repair", NAME, "--json", folder=tmp_path).stdout)
    assert damage_again["losses"] == []


def test_a_file_in_use_is_not_repaired(tmp_path: Path) -> None:
    with closing(fill(tmp_path / NAME)):
        done = holdfast("outbox", "repair", NAME, folder=tmp_path)
    assert_one_line(done, 4, "is in use by another client")


@pytest.mark.parametrize("tool", ["show", "check", "repair"])
def test_what_is_no_outbox(tmp_path: Path, tool: str) -> None:
    assert_one_line(holdfast("outbox", tool, "none", folder=tmp_path), 4, "expected the file")
    assert_one_line(holdfast("outbox", tool, ".", folder=tmp_path), 4, "expected the file")
    (tmp_path / "text").write_bytes(b"shopping list " * 100)
    assert_one_line(holdfast("outbox", tool, "text", folder=tmp_path), 5, "text.* is not a")


def test_help_has_examples_and_exit_codes(tmp_path: Path) -> None:
    for tool in ("show", "check", "repair"):
        done = holdfast("outbox", tool, "--help", folder=tmp_path)
        assert done.returncode == 0
        assert f"holdfast outbox {tool} meter.db" in done.stdout
        assert "Exit codes" in done.stdout
