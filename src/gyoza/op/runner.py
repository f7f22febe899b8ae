"""One run of an op inside `GYOZA_IO_DIR`: load the function, call it, and tell the worker how it ended."""

import importlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, Callable, List, NoReturn

from gyoza.op.author import Failure, io_dir
from gyoza.op.describe import describe
from gyoza.op.exchange import arguments_of, outputs_of, read_inputs, write_error, write_outputs
from gyoza.op.specs import Misuse, output_specs

USAGE = "usage: python -m gyoza.op [--describe] module:function"
STOPPED = 128 + signal.SIGTERM


class Stopped(BaseException):
    """The worker asked the op to stop. Not an Exception, so that an op's own `except Exception` lets it through."""


def main(arguments: List[str]) -> int:
    """The exit code: 0 done, 1 failed, 2 nothing could be tried, 143 stopped."""
    if len(arguments) == 2 and arguments[0] == "--describe":
        return _describe(arguments[1])
    if len(arguments) != 1:
        sys.stderr.write(USAGE + "\n")
        return 2
    # Without a handler Python would end at once; so, an op's own `finally` gets its turn.
    signal.signal(signal.SIGTERM, _stop)
    try:
        return run(arguments[0])
    except Stopped:
        # Not sys.exit: that would wait for the op's threads.
        sys.stdout.flush()
        os._exit(STOPPED)


def run(entry: str) -> int:
    folder = io_dir()
    if folder is None or not folder.is_dir():
        sys.stderr.write("GYOZA_IO_DIR does not name a folder: a worker sets it before it starts an op\n")
        return 2
    _flush_lines()
    try:
        function = load(entry)
        arguments = arguments_of(function, read_inputs(folder))
        files = {name for name, spec in output_specs(function).items() if spec["type"] == "file"}
        write_outputs(folder, outputs_of(function(**arguments), folder, files))
    except Misuse as misuse:
        sys.stderr.write(f"{misuse}\n")
        write_error(folder, str(misuse), retryable=False)
        return 1
    except Exception as error:  # noqa: BLE001 - whatever an op raises ends its run as failed
        _print_own_frames(error)
        write_error(folder, _sentence(error), retryable=not isinstance(error, Failure) or error.retryable)
        return 1
    return 0


def load(entry: str) -> Callable[..., Any]:
    """The function that `module:function` names, looked for in the working directory first."""
    module_name, _, name = entry.partition(":")
    if not module_name or not name:
        raise Misuse(f"'{entry}' does not name an op: write module:function")
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise _missing_module(module_name, error.name or "") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise Misuse(f"Module '{module_name}' has no function '{name}'")
    return function


def _missing_module(wanted: str, missing: str) -> Misuse:
    if f"{wanted}.".startswith(f"{missing}."):
        return Misuse(f"There is no module '{wanted}' in {Path.cwd()}")
    return Misuse(
        f"Module '{wanted}' needs '{missing}', which is not installed: add it to the requirements in gyoza.yml"
    )


def _print_own_frames(error: Exception) -> None:
    """The traceback from the op's own frame on: ours would only be noise to its author."""
    below = error.__traceback__.tb_next if error.__traceback__ else None
    traceback.print_exception(type(error), error, below)


def _sentence(error: Exception) -> str:
    """What happened and, where the op did not mean it, in which line of the op."""
    if isinstance(error, Failure):
        return str(error)
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    here = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(str(Path.cwd()))]
    return f"{said} ({Path(here[-1].filename).name}:{here[-1].lineno}, in {here[-1].name})" if here else said


def _describe(entry: str) -> int:
    try:
        sys.stdout.write(json.dumps(describe(entry)) + "\n")
    except Misuse as misuse:
        sys.stderr.write(f"{misuse}\n")
        return 2
    return 0


def _stop(_signal: int, _frame: object) -> NoReturn:
    raise Stopped


def _flush_lines() -> None:
    """Logs are read while the op runs, so a line must not wait in a buffer."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(line_buffering=True)
