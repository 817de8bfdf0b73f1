"""The `tsds` command. Each subcommand has a module of its own; what they share is in ``app`` and ``terminal``.

Whatever is slow to import is imported inside the commands, so that `tsds --help` answers at once.
"""

from tsds_pipeline.cli.app import tsds as main

__all__ = ["main"]
