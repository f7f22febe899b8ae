"""How much the long-running commands log, and in what shape: on stderr, a line each."""

import logging

from gyoza.models.errors import StartUpError

LEVELS = ("critical", "error", "warning", "info", "debug")


def log_at(level: str) -> None:
    """Everything of at least this level; StartUpError where there is no such level."""
    if level.lower() not in LEVELS:
        raise StartUpError(f"'{level}' is no log level: choose one of {', '.join(LEVELS)} (--log-level)")
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(message)s")
