"""The targets by name: each takes the bytes of one input and raises if something is wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.fuzz import broker_target, client_target, wire_targets

Target = Callable[[bytes], object]

TARGETS: Final[dict[str, Target]] = {
    "frames": wire_targets.frames,
    "decode": wire_targets.decoded,
    "records": wire_targets.records,
    "broker": broker_target.broker,
    "client": client_target.client,
}
INPUT_BYTES_MAX: Final = {
    "frames": 400,
    "decode": 300,
    "records": 200,
    "broker": 500,
    "client": 400,
}
REGRESSIONS: Final = Path(__file__).with_name("regressions")


def regressions(name: str) -> dict[str, bytes]:
    """What once broke a target, by file name: hex, with lines that begin with # for comments."""
    return {
        path.name: bytes.fromhex("".join(_code_lines(path)))
        for path in sorted(REGRESSIONS.glob(f"{name}-*.hex"))
    }


def _code_lines(path: Path) -> list[str]:
    return [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]
