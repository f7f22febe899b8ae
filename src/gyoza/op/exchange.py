"""What crosses between an op and its worker: inputs.json as arguments, a returned dict as outputs.json, error.json."""

import json
import os
from pathlib import Path
from typing import Any, Callable, Container, Dict, NoReturn, cast

from gyoza.op.author import LONGEST_MESSAGE
from gyoza.op.specs import Misuse, inputs_of


def read_inputs(folder: Path) -> Dict[str, Any]:
    path = folder / "inputs.json"
    try:
        inputs: object = json.loads(path.read_bytes())
    except OSError as error:
        raise Misuse(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise Misuse(f"{path} is not JSON: {error}") from error
    if not isinstance(inputs, dict):
        raise Misuse(f"{path} holds a value of type {type(inputs).__name__}: inputs are one JSON object")
    return cast("Dict[str, Any]", inputs)


def arguments_of(function: Callable[..., Any], inputs: Dict[str, Any]) -> Dict[str, Any]:
    """Inputs as keyword arguments: files become paths; null counts as absent."""
    declared = {each.name: each for each in inputs_of(function)}
    given = {name: value for name, value in inputs.items() if value is not None}
    missing = [each.name for each in declared.values() if each.required and each.name not in given]
    unknown = sorted(set(inputs) - set(declared))
    if unknown or missing:
        faults = [f"missing '{name}'" for name in missing] + [f"unknown '{name}'" for name in unknown]
        raise Misuse(f"The inputs do not fit {function.__name__}(): {', '.join(faults)}")
    absent: Dict[str, Any] = {each.name: None for each in declared.values() if not (each.required or each.has_default)}
    return {**absent, **{name: _argument(declared[name].type, value) for name, value in given.items()}}


def _argument(kind: str, value: Any) -> Any:
    return Path(value) if kind == "file" and isinstance(value, str) else value


def outputs_of(returned: object, folder: Path, files: Container[str]) -> Dict[str, Any]:
    """What the function gave back as a JSON object; those named in `files` as paths relative to the run's folder."""
    if returned is None:
        return {}
    if not isinstance(returned, dict):
        kind = type(returned).__name__
        raise Misuse(f"The op returned a value of type {kind}: an op returns a dict, its outputs by name, or None")
    outputs = cast("Dict[Any, Any]", returned)
    return {_name(name): _output(str(name), value, folder, name in files) for name, value in outputs.items()}


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise Misuse(f"The name of an output is a text, not {name!r}")
    return name


def _output(name: str, value: Any, folder: Path, is_file: bool) -> Any:
    try:
        plain = _inside(value, folder) if is_file and isinstance(value, Path) else value
        json.dumps(plain, allow_nan=False, ensure_ascii=False, default=_refused).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise Misuse(f"Output '{name}' cannot be kept: {error}") from error
    return plain


def _refused(value: object) -> NoReturn:
    """A path that nothing declares would be a dead name once the run's folder is gone."""
    if isinstance(value, Path):
        raise TypeError(f"{value} is a file that is not declared: return a TypedDict in which it is a Path of its own")
    raise TypeError(f"a {type(value).__name__} is not JSON")


def _inside(path: Path, folder: Path) -> str:
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        return path.resolve().relative_to(folder.resolve()).as_posix()
    except ValueError:
        raise ValueError(f"{path} lies outside of the run: write files into output_dir()") from None


def write_outputs(folder: Path, outputs: Dict[str, Any]) -> None:
    _write(folder / "outputs.json", outputs)


def write_error(folder: Path, message: str, retryable: bool) -> None:
    _write(folder / "error.json", {"error_message": message[:LONGEST_MESSAGE], "retryable": retryable})


def _write(path: Path, data: Dict[str, Any]) -> None:
    """Complete or not at all: the worker never meets half a file."""
    half = path.with_name(f".{path.name}.{os.getpid()}")
    half.write_text(json.dumps(data), encoding="utf-8")
    half.replace(path)
