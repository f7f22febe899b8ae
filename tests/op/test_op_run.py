import ast
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gyoza.op import Failure, log, op, output_dir, progress, secret

from .conftest import OP

Run = Callable[..., Any]

GREETING = """
    from typing import Optional
    from gyoza.op import op, log, progress

    @op
    def work(name: str, times: int = 2, title: Optional[str] = None) -> dict:
        progress(40)
        log(f"greeting {name}")
        print("to the logs")
        return {"text": " ".join([title or "dear", name] * times)}
"""


def test_inputs_become_arguments_and_what_is_returned_becomes_outputs(run: Run) -> None:
    ended = run(GREETING, {"name": "Ada", "times": 1})
    assert (ended.code, ended.outputs, ended.error) == (0, {"text": "dear Ada"}, None)
    assert ended.events == [{"type": "PROGRESS", "msg": 40}, {"type": "INFO", "msg": "greeting Ada"}]
    assert ended.stdout == "to the logs\n"


def test_null_counts_as_absent(run: Run) -> None:
    assert run(GREETING, {"name": "Ada", "times": None, "title": None}).outputs == {"text": "dear Ada dear Ada"}


def test_an_optional_parameter_without_default_is_none_when_absent(run: Run) -> None:
    source = """
        from typing import Optional
        def work(name: Optional[str]):
            return {"name": name}
    """
    assert run(source, {}).outputs == {"name": None}


def test_an_op_runs_on_python_3_9(run: Run) -> None:
    ended = run(GREETING, {"name": "Ada"}, python=oldest_python())
    assert (ended.code, ended.outputs) == (0, {"text": "dear Ada dear Ada"}), ended.stderr


@pytest.mark.parametrize("path", sorted(OP.glob("*.py")), ids=lambda path: path.name)
def test_the_package_is_written_in_python_3_9_with_the_standard_library_alone(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    stdlib = {"ast", "importlib", "inspect", "json", "os", "pathlib", "signal", "sys", "tempfile", "traceback", "types"}
    assert {name for name in imported if not name.startswith("gyoza.op")} <= stdlib | {"typing"}


def test_a_file_comes_in_as_a_path_and_goes_out_relative_to_the_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("abc")
    source = """
        from pathlib import Path
        from typing import Optional, TypedDict
        from gyoza.op import output_dir
        class Out(TypedDict):
            upper: Path
            spare: Optional[Path]
        def work(text: Path, spare: Path = None) -> Out:
            out = output_dir() / "upper.txt"
            out.write_text(text.read_text().upper())
            return {"upper": out, "spare": spare}
    """
    ended = run(source, {"text": str(tmp_path / "in.txt")})
    assert ended.outputs == {"upper": "outputs/upper.txt", "spare": None}
    assert (ended.folder / "outputs/upper.txt").read_text() == "ABC"


def test_an_exception_ends_the_run_as_failed_with_the_op_s_own_traceback(run: Run) -> None:
    ended = run("def work():\n    1 / 0\n", {})
    assert (ended.code, ended.outputs) == (1, None)
    assert ended.error == {
        "error_message": "ZeroDivisionError: division by zero (my_op.py:2, in work)",
        "retryable": True,
    }
    assert "my_op.py" in ended.stderr and "runner.py" not in ended.stderr


@pytest.mark.parametrize("retryable", [False, True])
def test_a_failure_says_its_sentence_and_whether_to_try_again(run: Run, retryable: bool) -> None:
    source = f"""
        from gyoza.op import Failure
        def work():
            raise Failure("the oven is cold", retryable={retryable})
    """
    assert run(source, {}).error == {"error_message": "the oven is cold", "retryable": retryable}


def test_an_exit_code_of_the_op_s_own_is_kept(run: Run) -> None:
    assert run("import sys\ndef work():\n    sys.exit(3)\n", {}).code == 3


_FILE_OUT = "from pathlib import Path\nfrom typing import TypedDict\nclass Out(TypedDict):\n    x: Path\n"

NONSENSE: dict[str, tuple[str, Any, str, str]] = {
    "no such module": ("", {}, "your_op:work", "There is no module 'your_op' in "),
    "no such function": ("", {}, "my_op:work", "Module 'my_op' has no function 'work'"),
    "not callable": ("work = 3", {}, "my_op:work", "Module 'my_op' has no function 'work'"),
    "no colon": ("", {}, "my_op.work", "'my_op.work' does not name an op: write module:function"),
    "missing package": ("import numpyy", {}, "my_op:work", "Module 'my_op' needs 'numpyy', which is not installed"),
    "no inputs.json": ("def work(): pass", None, "my_op:work", "inputs.json cannot be read: No such file"),
    "inputs not JSON": ("def work(): pass", "{", "my_op:work", "inputs.json is not JSON: "),
    "inputs a list": (
        "def work(): pass",
        [],
        "my_op:work",
        "inputs.json holds a value of type list: inputs are one JSON object",
    ),
    "inputs do not fit": (
        "def work(a, b=1): pass",
        {"c": 1},
        "my_op:work",
        "The inputs do not fit work(): missing 'a', unknown 'c'",
    ),
    "an input without a name": ("def work(*a): pass", {}, "my_op:work", "parameter 'a' of work() cannot be an input"),
    "a type JSON does not know": ("def work(a: set): pass", {}, "my_op:work", "which the wire does not know"),
    "a type that is nowhere": ("def work(a: 'Foo'): pass", {}, "my_op:work", "name 'Foo' is not defined"),
    "no dict returned": (
        "def work(): return 3",
        {},
        "my_op:work",
        "The op returned a value of type int: an op returns a dict",
    ),
    "a name that is a number": (
        "def work(): return {1: 2}",
        {},
        "my_op:work",
        "The name of an output is a text, not 1",
    ),
    "NaN": ("def work(): return {'x': [float('nan')]}", {}, "my_op:work", "Output 'x' cannot be kept: Out of range"),
    "a set": ("def work(): return {'x': {1}}", {}, "my_op:work", "Output 'x' cannot be kept: a set is not JSON"),
    "half a character": ("def work(): return {'x': '\\ud800'}", {}, "my_op:work", "Output 'x' cannot be kept: "),
    "no file": (
        f"{_FILE_OUT}def work() -> Out: return {{'x': Path('no')}}",
        {},
        "my_op:work",
        "Output 'x' cannot be kept: there is no file no",
    ),
    "a file elsewhere": (
        f"{_FILE_OUT}def work() -> Out: return {{'x': Path(__file__)}}",
        {},
        "my_op:work",
        "lies outside of the run: write files into output_dir()",
    ),
    "a file that is not declared": (
        f"{_FILE_OUT}def work() -> dict: return {{'x': [Path(__file__)]}}",
        {},
        "my_op:work",
        "is a file that is not declared: return a TypedDict in which it is a Path of its own",
    ),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_gets_one_sentence_and_no_second_try(run: Run, name: str) -> None:
    source, inputs, entry, sentence = NONSENSE[name]
    ended = run(source, inputs, entry)
    assert (ended.code, ended.outputs) == (1, None)
    assert sentence in ended.error["error_message"] and ended.error["retryable"] is False
    assert ended.stderr.strip() == ended.error["error_message"]


def test_without_a_folder_nothing_can_be_tried(run: Run, io_folder: Path) -> None:
    io_folder.rmdir()
    ended = run("", None)
    assert ended.code == 2 and "GYOZA_IO_DIR does not name a folder" in ended.stderr


def test_sigterm_ends_an_op_at_once_past_its_except_exception_and_its_threads(start: Run, io_folder: Path) -> None:
    source = """
        import threading, time
        from gyoza.op import log
        def work():
            threading.Thread(target=time.sleep, args=(60,)).start()
            log("waiting")
            while True:
                try:
                    time.sleep(60)
                except Exception:
                    pass
    """
    with start(source, {}) as process:
        wait_for(lambda: (io_folder / "events.ndjson").exists())
        asked = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 143
        assert time.monotonic() - asked < 5
    assert not (io_folder / "outputs.json").exists() and not (io_folder / "error.json").exists()


def test_lines_of_many_threads_never_mix(run: Run) -> None:
    source = """
        from concurrent.futures import ThreadPoolExecutor
        from gyoza.op import log
        def work():
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda i: log(str(i) * 500), range(10, 90)))
    """
    assert sorted(each["msg"][:2] for each in run(source, {}).events) == [str(i) for i in range(10, 90)]


def test_progress_is_a_whole_number_within_bounds_and_told_once(
    io_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GYOZA_IO_DIR", str(io_folder))
    for percent in (-1, 0, 0.4, 33.3, 33.9, 34, 100.5, 100):
        progress(percent)
    assert events_in(io_folder) == [{"type": "PROGRESS", "msg": percent} for percent in (0, 33, 34, 100)]


def test_a_message_is_cut_to_bounds_and_cleaned(io_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GYOZA_IO_DIR", str(io_folder))
    log("x" * 100_000)
    log("a\0b\ud800c\nd")
    long, odd = events_in(io_folder)
    assert len(long["msg"]) == 10_001 and odd["msg"] == "a\ufffdb?c\nd"


def test_outside_of_a_run_an_op_is_a_plain_function(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GYOZA_IO_DIR", raising=False)

    @op
    def double(x: int) -> dict[str, int]:
        progress(50)
        log("half way")
        return {"x": 2 * x}

    assert double(4) == {"x": 8}
    assert "[info] half way" in capfd.readouterr().err
    folder = output_dir()
    assert folder.is_dir() and folder == output_dir()
    with pytest.raises(Failure, match="no"):
        raise Failure("no")


def test_to_import_it_is_cheap(lib: Path) -> None:
    code = (
        "import sys; import gyoza.op; print(len([m for m in sys.modules if m in ('typing','inspect','ast','asyncio')]))"
    )
    python = oldest_python()
    done = subprocess.run([python, "-S", "-c", code], env={"PYTHONPATH": str(lib)}, capture_output=True, text=True)
    assert done.stdout.strip() == "1", done.stderr


def oldest_python() -> str:
    """A Python 3.9 of this machine, on the path or one of pyenv's."""
    candidates = [shutil.which("python3.9"), *sorted(Path.home().glob(".pyenv/versions/3.9.*/bin/python"))]
    for candidate in filter(None, candidates):
        if subprocess.run([str(candidate), "-c", ""], capture_output=True).returncode == 0:
            return str(candidate)
    pytest.skip("no Python 3.9 on this machine")


def events_in(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "events.ndjson").read_text().splitlines()]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_secret_is_read_from_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("öffne dich\n", encoding="utf-8")
    monkeypatch.setenv("GYOZA_SECRETS_DIR", str(tmp_path))
    assert secret("token") == "öffne dich"
    with pytest.raises(Failure, match="no secret 'key': name it"):
        secret("key")


def test_without_secrets_no_file_is_taken_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("here by chance")
    monkeypatch.chdir(tmp_path)
    for folder in ("", None):
        monkeypatch.delenv("GYOZA_SECRETS_DIR", raising=False)
        if folder is not None:
            monkeypatch.setenv("GYOZA_SECRETS_DIR", folder)
        with pytest.raises(Failure, match="no secret 'token'"):
            secret("token")
