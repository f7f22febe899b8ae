"""The command line. Importing it imports nothing else of ours: every command is loaded when it is called."""

from gyoza.cli.app import main

__all__ = ["main"]
