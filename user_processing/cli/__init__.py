"""The command `user-processing`."""

from user_processing.cli.commands import main

__all__ = ["main"]
