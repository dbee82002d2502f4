"""``python -m tests.hostile``: every attack in its full size, measured, as a table."""

import argparse
import io
import resource
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Final

from tests.hostile.catalogue import ATTACKS
from tests.hostile.scene import MIB, Attack, Result, Stage, percentile
from tests.support.wire import Closed

HEAD: Final = (
    *("attack", "size", "p99 before", "p99 during", "worst", "memory", "bound", "log lines"),
    "answers",
)


def _row(result: Result) -> tuple[str, ...]:
    def ms(value_us: int) -> str:
        return f"{value_us / 1000:.1f} ms"

    return (
        result.attack.title,
        f"{result.size:,}",
        ms(percentile(result.before_us, 0.99)),
        ms(percentile(result.during_us, 0.99)),
        ms(max(result.during_us)),
        f"{result.memory_bytes / MIB:.0f} MiB",
        f"{result.bound_bytes / MIB:.0f} MiB",
        str(result.log_lines),
        ", ".join(f"{what} {count:,}" for what, count in sorted(result.noted.items())),
    )


def _play(attack: Attack, arguments: argparse.Namespace) -> bool:
    log = io.StringIO()
    with tempfile.TemporaryDirectory(prefix="holdfast-hostile-") as folder:
        try:
            with redirect_stdout(log):
                stage = Stage(attack, Path(folder), is_full=not arguments.small)
                with stage:
                    result = stage.play(attack, seed=arguments.seed)
        except (AssertionError, OSError, Closed) as error:
            print(f"{attack.name} FAILED: {error!r}\n{log.getvalue()[-5000:]}", flush=True)
            return False
    print("| " + " | ".join(_row(result)) + " |", flush=True)
    try:
        result.check()
    except AssertionError as error:
        print(f"{attack.name} FAILED: {error}", flush=True)
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("attacks", nargs="*", help="names of attacks; all, if none is given")
    parser.add_argument("--small", action="store_true", help="in the size that the tests have")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    known = {attack.name for attack in ATTACKS}
    if unknown := set(arguments.attacks) - known:
        parser.error(f"expected some of {', '.join(sorted(known))}, got {', '.join(unknown)}")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print("| " + " | ".join(HEAD) + " |\n" + "| --- " * len(HEAD) + "|", flush=True)
    chosen = [one for one in ATTACKS if not arguments.attacks or one.name in arguments.attacks]
    held = [_play(attack, arguments) for attack in chosen]
    print(f"\n{sum(held)} of {len(held)} attacks held")
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
