import json
from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., Any]


def spec(kind: str, required: bool = True, default: Any = None) -> dict[str, Any]:
    return {"type": kind, "required": required, "default": default}


def describe(run: Run, source: str, entry: str = "my_op:work") -> Any:
    ended = run(source, None, "--describe", entry)
    assert ended.code == 0, ended.stderr
    return json.loads(ended.stdout)


def refusal(run: Run, source: str, entry: str = "my_op:work") -> str:
    ended = run(source, None, "--describe", entry)
    assert ended.code == 2 and ended.stdout == ""
    return ended.stderr.strip()


def test_the_signature_is_the_schema(run: Run) -> None:
    source = '''
        from pathlib import Path
        from typing import Any, Dict, List, Optional
        def work(a: str, b: int, c: float, d: bool, e: list, f: dict, g: Any, h: Path, i,
                 j: List[int], k: Dict[str, int], l: list[str], m: Optional[int], n: int | None,
                 o: int = 3, p: Optional[str] = "x", q: list = [1, 2], *, r: bool = False) -> dict:
            """First line.

            More.
            """
    '''
    assert describe(run, source) == {
        "description": "First line.",
        "input_specs": {
            "a": spec("string"),
            "b": spec("int"),
            "c": spec("float"),
            "d": spec("bool"),
            "e": spec("list"),
            "f": spec("dict"),
            "g": spec("any"),
            "h": spec("file"),
            "i": spec("any"),
            "j": spec("list"),
            "k": spec("dict"),
            "l": spec("list"),
            "m": spec("int", False),
            "n": spec("int", False),
            "o": spec("int", False, 3),
            "p": spec("string", False, "x"),
            "q": spec("list", False, [1, 2]),
            "r": spec("bool", False, False),
        },
        "output_specs": {},
    }


def test_outputs_come_from_a_typed_dict(run: Run) -> None:
    source = """
        from __future__ import annotations
        from pathlib import Path
        from typing import Optional, TypedDict
        class Sure(TypedDict):
            image: Path
            stats: dict[str, int]
        class Outputs(Sure, total=False):
            note: str
            count: Optional[int]
        def work() -> Outputs: ...
    """
    assert describe(run, source)["output_specs"] == {
        "image": spec("file"),
        "stats": spec("dict"),
        "note": spec("string", False),
        "count": spec("int", False),
    }


def test_dependencies_of_the_body_need_not_be_there(run: Run) -> None:
    source = """
        import torchh, json as js
        from PILL import Image
        from gyoza.op import op
        MODEL = torchh.load("weights")
        LARGEST = 2 ** 10
        def double(size): return 2 * size
        SIZES = [64, double(64)]
        class Net(torchh.Module): ...
        @op
        @torchh.no_grad()
        def work(sizes: list = SIZES, largest: int = LARGEST) -> dict:
            return {"x": Image.new(MODEL)}
    """
    assert describe(run, source)["input_specs"] == {
        "sizes": spec("list", False, [64, 128]),
        "largest": spec("int", False, 1024),
    }


def test_a_default_that_json_cannot_say_is_left_to_the_function(run: Run) -> None:
    source = """
        from pathlib import Path
        def work(model: Path = Path("model.bin")): ...
    """
    assert describe(run, source)["input_specs"] == {"model": spec("file", False)}


@pytest.mark.parametrize(
    ("source", "entry", "sentence"),
    [
        ("", "your_op:work", "There is no module 'your_op' in "),
        ("work = 1", "my_op:work", "my_op.py has no plain function 'work' at its top level"),
        ("def work(:", "my_op:work", "my_op.py:1: invalid syntax"),
        ("import torchh\ndef work(x: torchh.Tensor): ...", "my_op:work", "work() names 'torchh' in its signature"),
        ("def work(x: Foo): ...", "my_op:work", "my_op.py: the signature of work() cannot be read: name 'Foo'"),
        ("def work(x: set): ...", "my_op:work", "parameter 'x' of work() has the type <class 'set'>"),
        ("def work(**x): ...", "my_op:work", "parameter 'x' of work() cannot be an input"),
    ],
)
def test_what_cannot_be_described_is_said_in_one_line(run: Run, source: str, entry: str, sentence: str) -> None:
    said = refusal(run, source, entry)
    assert sentence in said and "\n" not in said
