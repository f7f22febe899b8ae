"""What is drawn from the code is as the code is now, and every code has its page."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gyoza.models.errors import DefinitionDisabled, DefinitionNotFound, GyozaError, Refusal
from gyoza.server.catalogue import ENTRIES, FAULTS
from gyoza.server.faults import WORDS
from gyoza.server.problems import status_of
from tools import reference

from .pages import ROOT, SOURCE


@pytest.mark.parametrize("page", reference.wanted(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_generated_page_is_what_the_code_says(page: Path):
    assert page.exists() and page.read_text() == reference.wanted()[page], "run make docs"


def test_no_page_is_left_of_what_is_gone():
    assert reference.stale() == set(), "run make docs"


def kinds(kind: type[GyozaError]) -> Iterator[type[GyozaError]]:
    if kind.__module__.startswith("gyoza."):
        yield kind
    for child in kind.__subclasses__():
        yield from kinds(child)


def test_every_refusal_has_one_entry_in_the_catalogue_and_no_entry_is_stale():
    entered = [entry.example.code for entry in ENTRIES]
    assert sorted(entered) == sorted({kind.code for kind in kinds(Refusal)})


def test_an_entry_s_example_is_of_the_class_that_has_its_code():
    by_code = {kind.code: kind for kind in kinds(Refusal)}
    assert [entry.example.code for entry in ENTRIES if type(entry.example) is not by_code[entry.example.code]] == []


def test_the_catalogue_is_in_the_order_of_statuses():
    statuses = [status_of(entry.example) for entry in ENTRIES if entry.example.code != "http_error"]
    assert statuses == sorted(statuses)


def codes_of_faults() -> set[str]:
    """The last text in every call of `Fault` and of what makes one."""
    return {
        node.args[-1].value
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id.lower().endswith("fault")
        and node.args
        and isinstance(node.args[-1], ast.Constant)
        and re.fullmatch(r"[a-z0-9_]+", str(node.args[-1].value))
    }


def test_every_code_of_a_place_is_in_the_catalogue_and_no_other():
    of_an_item = {DefinitionNotFound.code, DefinitionDisabled.code}
    assert codes_of_faults() | {code for code, _ in WORDS.values()} | of_an_item == set(FAULTS)


def test_no_code_is_written_past_the_catalogue():
    known = {entry.example.code for entry in ENTRIES} | set(FAULTS)
    written = {
        value.value
        for path in (SOURCE / "server").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant) and key.value == "code" and isinstance(value, ast.Constant)
    }
    assert written <= known
