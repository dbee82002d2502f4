"""``python -m holdfast``: the command ``holdfast``."""

from holdfast.cli.main import main

main()
