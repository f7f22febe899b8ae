"""What an op takes and gives, and what is said when it gets or gives something else."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gyoza.models import InputSpec, InputSpecs, InputValidationError
from gyoza.models.definition import TYPES

FILE = "gyoza://files/019"

# value -> the types that take it, beside `any`
ACCEPTED: list[tuple[Any, set[str]]] = [
    ("", {"string"}),
    ("5", {"string"}),
    (FILE, {"string", "file"}),
    ("https://example.org/a.png", {"string", "file"}),
    ("s3://bucket/key", {"string", "file"}),
    ("file:///data/a.png", {"string", "file"}),
    ("a.png", {"string"}),
    ("/data/a.png", {"string"}),
    ("://nowhere", {"string"}),
    ("gyoza://", {"string"}),
    (0, {"int", "float"}),
    (-7, {"int", "float"}),
    (1.0, {"float"}),
    (1.5, {"float"}),
    (True, {"bool"}),
    (False, {"bool"}),
    ([], {"list"}),
    ([1, "a"], {"list"}),
    ({}, {"dict"}),
    ({"a": 1}, {"dict"}),
]


def specs(**types: str) -> InputSpecs:
    return InputSpecs({name: InputSpec(type) for name, type in types.items()})


def faults_of(specs: InputSpecs, **inputs: Any) -> list[str]:
    with pytest.raises(InputValidationError) as refused:
        specs.validate(inputs)
    return refused.value.errors


def test_the_types_are_the_contract_s():
    assert list(TYPES) == ["string", "int", "float", "bool", "list", "dict", "any", "file"]


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize(("value", "types"), ACCEPTED)
def test_a_value_is_taken_by_its_own_types_and_by_no_other(type: str, value: Any, types: set[str]):
    if type in types | {"any"}:
        assert specs(x=type).validate({"x": value}) == {"x": value}
    else:
        assert len(faults_of(specs(x=type), x=value)) == 1


def test_a_fault_says_what_was_wanted_and_what_came():
    assert faults_of(specs(size="int"), size="5") == ["'size' must be of type int, not string"]
    assert faults_of(specs(photo="file"), photo="a.png") == [
        "'photo' must be a URI such as gyoza://files/<id>, not string"
    ]


def test_every_fault_is_named_at_once():
    wanted = specs(size="int", name="string", flag="bool")
    assert faults_of(wanted, size=True, flag=1, colour="red") == [
        "'colour' is not an input of this op (it takes: size, name, flag)",
        "'size' must be of type int, not bool",
        "'name' is required (string)",
        "'flag' must be of type bool, not int",
    ]


def test_all_faults_stand_in_the_one_sentence_of_the_error():
    error = InputValidationError(["'a' is required (int)", "'b' is required (int)"])
    assert str(error) == error.detail == "Invalid inputs: 'a' is required (int); 'b' is required (int)"


def test_an_unknown_input_is_refused_also_by_an_op_that_takes_none():
    assert faults_of(InputSpecs(), x=1) == ["'x' is not an input of this op (it takes none)"]


def test_null_counts_as_absent():
    assert faults_of(specs(x="any"), x=None) == ["'x' is required (any)"]
    assert InputSpecs(x=InputSpec("int", required=False)).validate({"x": None}) == {}
    assert InputSpecs(x=InputSpec("int", default=3)).validate({"x": None}) == {"x": 3}
    assert InputSpecs().validate({"unknown": None}) == {}


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("default", [0, False, "", [], {}, 7])
def test_a_default_is_filled_in(required: bool, default: Any):
    wanted = InputSpecs(x=InputSpec("any", required, default))
    assert wanted.validate({}) == {"x": default}
    assert wanted.validate({"x": "given"}) == {"x": "given"}


def test_an_optional_input_without_default_stays_absent():
    assert InputSpecs(x=InputSpec("int", required=False)).validate({}) == {}


def test_validating_leaves_the_given_inputs_alone():
    inputs: dict[str, Any] = {"x": None}
    InputSpecs(x=InputSpec("int", default=3)).validate(inputs)
    assert inputs == {"x": None}


@given(st.dictionaries(st.sampled_from("abc"), st.none() | st.booleans() | st.integers() | st.text(max_size=2)))
def test_what_was_validated_once_passes_again_unchanged(inputs: dict[str, Any]):
    wanted = InputSpecs(a=InputSpec("int"), b=InputSpec("string", default="b"), c=InputSpec("bool", required=False))
    try:
        filled = wanted.validate(inputs)
    except InputValidationError as refused:
        assert refused.errors
    else:
        assert wanted.validate(filled) == filled
        assert None not in filled.values()


def test_outputs_that_fit_have_no_faults():
    wanted = InputSpecs(count=InputSpec("int"), note=InputSpec("string", required=False))
    assert wanted.faults_of_outputs({"count": 1}) == []
    assert wanted.faults_of_outputs({"count": 1, "note": None, "undeclared": {}}) == []


def test_every_fault_of_outputs_is_named():
    wanted = specs(count="int", name="string", photo="file")
    assert wanted.faults_of_outputs({"count": 1.0, "photo": 3}) == [
        "'count' must be of type int, not float",
        "'name' is missing (string)",
        "'photo' must be a URI such as gyoza://files/<id>, not int",
    ]


def test_an_output_file_is_what_the_upload_made_of_it():
    uploaded = {"uri": FILE, "name": "a.png", "size": 3, "sha256": "00", "media_type": "image/png"}
    assert specs(photo="file").faults_of_outputs({"photo": uploaded}) == []
