import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gyoza.client.project import definition_of, read_project

from .conftest import EXAMPLES, Unpacked, error, events, outputs, unpack

TEXT = EXAMPLES / "wordcount" / "recipe.txt"


@pytest.fixture(scope="module")
def wordcount(tmp_path_factory: pytest.TempPathFactory) -> Unpacked:
    return unpack("wordcount", tmp_path_factory.mktemp("wordcount"))


def test_the_words_of_a_real_text_are_counted(wordcount: Unpacked, io_folder: Path) -> None:
    ended = wordcount.run(io_folder, {"text": str(TEXT), "top": 5})
    assert ended.returncode == 0, ended.stderr
    out = outputs(io_folder)
    text = TEXT.read_text()
    counted = Counter(re.findall(r"[a-z]+", text.lower()))
    assert (out["lines"], out["words"], out["distinct"]) == (text.count("\n"), counted.total(), len(counted))
    assert [(each["word"], each["count"]) for each in out["top"]] == sorted(
        counted.items(), key=lambda pair: (-pair[1], pair[0])
    )[:5]
    table = (io_folder / out["frequencies"]).read_text().splitlines()
    assert {word: int(count) for word, count in (line.split("\t") for line in table)} == counted
    assert [each["msg"] for each in events(io_folder) if each["type"] == "PROGRESS"] == [0, 25, 50, 75, 100]
    assert not list(io_folder.glob("*.part")) and not (io_folder / "words.txt").exists()


@pytest.mark.parametrize("name", ['a "quoted" name.txt', "back\\slash.txt", "Zürich.txt", "饺子 🥟.txt", "text"])
def test_any_file_name_is_understood(wordcount: Unpacked, io_folder: Path, name: str) -> None:
    path = io_folder / name
    path.write_text("one two two\n")
    inputs: dict[str, Any] = {"other": {"text": "no", "list": ["text", {"text": "no"}]}, "text": str(path), "top": None}
    assert wordcount.run(io_folder, inputs).returncode == 0
    assert outputs(io_folder)["top"] == [{"word": "two", "count": 2}, {"word": "one", "count": 1}]


def test_letters_of_other_scripts_and_typography_are_understood(wordcount: Unpacked, io_folder: Path) -> None:
    (io_folder / "text.txt").write_text("Don’t—don't “café” 'café' naïve\n\n餃子 餃子 餃子")
    assert wordcount.run(io_folder, {"text": str(io_folder / "text.txt")}).returncode == 0
    out = outputs(io_folder)
    assert {each["word"]: each["count"] for each in out["top"]} == {"餃子": 3, "don't": 2, "café": 2, "naïve": 1}
    assert out["lines"] == 3


def test_an_empty_text_has_no_words(wordcount: Unpacked, io_folder: Path) -> None:
    (io_folder / "text.txt").touch()
    assert wordcount.run(io_folder, {"text": str(io_folder / "text.txt")}).returncode == 0
    out = outputs(io_folder)
    assert (out["lines"], out["words"], out["distinct"], out["top"]) == (0, 0, 0, [])


@pytest.mark.parametrize(
    ("inputs", "content", "sentence"),
    [
        ({}, b"", "the text cannot be read"),
        ({"text": "nowhere"}, b"", "the text cannot be read"),
        ({"text": "text.txt", "top": -1}, b"", "top must be a whole number"),
        ({"text": "text.txt", "top": "many"}, b"", "top must be a whole number"),
        ({"text": "text.txt"}, b"caf\xe9\n", "the text is not in UTF-8"),
    ],
)
def test_bad_input_gets_one_sentence(
    wordcount: Unpacked, io_folder: Path, inputs: dict[str, Any], content: bytes, sentence: str
) -> None:
    (io_folder / "text.txt").write_bytes(content)
    assert wordcount.run(io_folder, inputs).returncode == 1
    assert error(io_folder) == {"error_message": sentence, "retryable": False}
    assert not (io_folder / "outputs.json").exists()


def test_its_definition_is_what_gyoza_yml_says() -> None:
    definition = definition_of(read_project(EXAMPLES / "wordcount"), None)
    assert definition["input_specs"]["top"] == {"type": "int", "required": False, "default": 10}
    assert definition["output_specs"]["frequencies"]["type"] == "file"
