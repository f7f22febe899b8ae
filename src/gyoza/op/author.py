"""What an op calls while it works. Outside of a run (no `GYOZA_IO_DIR`) all of it still works, for plain tests."""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, Optional, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

LONGEST_MESSAGE = 10_000
"""Characters of a message that are kept: an event's text is bounded, and the full story belongs on stdout."""

_told: Dict[Optional[Path], int] = {}
_scratch: Dict[str, Path] = {}


class Failure(Exception):
    """Ends the run as failed with this sentence. `retryable`: whether another attempt could end better."""

    def __init__(self, message: str, retryable: bool = False):
        super().__init__(message)
        self.retryable = retryable


def op(function: Function) -> Function:
    """Marks a function as an op. It stays the plain function that it was."""
    function.__dict__["__gyoza_op__"] = True
    return function


def progress(percent: float) -> None:
    """Tells how much is done, 0 to 100. As cheap as to stand in an inner loop: only a new whole number is written."""
    whole = int(max(0, min(100, percent)))
    if _told.get(io_dir()) != whole:
        _told[io_dir()] = whole
        _append("PROGRESS", whole)


def log(message: object) -> None:
    """Puts a line into the run's timeline. `print` goes to the attempt's logs instead: use that for the details."""
    text = str(message).replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
    _append("INFO", text if len(text) <= LONGEST_MESSAGE else text[:LONGEST_MESSAGE] + "…")


def output_dir() -> Path:
    """The folder to write output files into. Outside of a run: a temporary folder, one for each process."""
    folder = io_dir()
    if folder is None:
        if "folder" not in _scratch:
            _scratch["folder"] = Path(tempfile.mkdtemp(prefix="gyoza-op-"))
        return _scratch["folder"]
    (folder / "outputs").mkdir(exist_ok=True)
    return folder / "outputs"


def secret(name: str) -> str:
    """The text of a secret that gyoza.yml names, without the end of its line. For a plain test: GYOZA_SECRETS_DIR."""
    folder = os.environ.get("GYOZA_SECRETS_DIR")
    try:
        if folder:
            return Path(folder, name).read_text(encoding="utf-8").rstrip("\r\n")
    except FileNotFoundError:
        pass
    raise Failure(f"The op was given no secret '{name}': name it in gyoza.yml (secrets)")


def io_dir() -> Optional[Path]:
    """The folder that the worker gave this run; None outside of a run."""
    folder = os.environ.get("GYOZA_IO_DIR")
    return Path(folder) if folder else None


def _append(kind: str, msg: object) -> None:
    """One event, one line, one write: with O_APPEND, lines of threads and child processes never mix."""
    folder = io_dir()
    if folder is None:
        sys.stderr.write(f"[{kind.lower()}] {msg}\n")
        return
    line = json.dumps({"type": kind, "msg": msg}).encode() + b"\n"
    events = os.open(folder / "events.ndjson", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(events, line)
    finally:
        os.close(events)
