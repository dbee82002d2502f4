"""The command line: the ``holdfast`` command and its subcommands."""
