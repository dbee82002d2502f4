"""``holdfast bench``: load for any broker, and what it makes of it."""

from holdfast.cli.bench.commands import BENCH_HELP, add_to

__all__ = ["BENCH_HELP", "add_to"]
