"""Whatever is wrong with the shape of a body is told in our words and by its place."""

import json
from typing import Any, get_args

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic_core.core_schema import ErrorType

from gyoza.server import schemas
from gyoza.server.catalogue import FAULTS
from gyoza.server.faults import WORDS, fault_of

from .actors import refused

SHAPES = [
    shape
    for shape in vars(schemas).values()
    if isinstance(shape, type) and issubclass(shape, BaseModel) and shape is not BaseModel
]
# What pydantic could say as well, of things that no shape of ours has.
OUT_OF_REACH = """
    no_such_attribute json_invalid json_type needs_python_object recursion_loop recursion_depth_exceeded frozen_field
    frozen_instance invalid_key get_attribute_error dataclass_type dataclass_exact_type named_tuple_type
    default_factory_not_called iterable_type iteration_error string_not_ascii frozen_dict_type ordered_dict_type
    counter_type mapping_type deque_type tuple_type set_type set_item_not_hashable bytes_type bytes_too_short
    bytes_too_long bytes_invalid_encoding assertion_error missing_sentinel_error ellipsis_error date_type date_parsing
    date_from_datetime_parsing date_from_datetime_inexact date_past date_future time_type time_parsing datetime_past
    datetime_future timezone_naive timezone_offset time_delta_type time_delta_parsing frozen_set_type is_instance_of
    is_subclass_of callable_type union_tag_invalid union_tag_not_found arguments_type missing_argument
    unexpected_keyword_argument missing_keyword_only_argument unexpected_positional_argument
    missing_positional_only_argument multiple_argument_values url_type url_parsing url_syntax_violation url_too_long
    url_scheme decimal_type decimal_parsing decimal_max_digits decimal_max_places decimal_whole_digits fraction_type
    fraction_parsing complex_type complex_str_parsing
"""

odd = ["", "2026-01-01", "2026-01-01T00:00:00", "9999-12-31T23:59:59-23:59", "x" * 1001, "INFO", "int", 10**6, -1]
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(odd)
junk = st.recursive(
    scalars, lambda below: st.lists(below, max_size=2) | st.dictionaries(st.text(max_size=3), below), max_leaves=4
)


def filled(shape: Any) -> st.SearchStrategy[Any]:
    """Objects with the members of the shape, of any kind and mostly wrong."""
    members = {name: st.one_of(junk, *nested(field.annotation)) for name, field in shape.model_fields.items()}
    return st.fixed_dictionaries({}, optional={**members, "unheard_of": scalars})


def nested(annotation: Any) -> list[st.SearchStrategy[Any]]:
    """The shapes within a type, alone, in lists and in maps."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        each = filled(annotation)
        return [each, st.lists(each, max_size=2), st.dictionaries(st.sampled_from(["a", "b/c"]), each)]
    return [found for inner in get_args(annotation) for found in nested(inner)]


def place(body: Any, pointer: str) -> Any:
    """What a pointer names; KeyError or the like where there is nothing."""
    for part in pointer.split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        body = body[int(part) if isinstance(body, list) else part]
    return body


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_every_fault_of_a_body_is_told_in_our_words_and_points_into_it(shape: type[BaseModel], data: st.DataObject):
    body = data.draw(filled(shape) | scalars)
    try:
        shape.model_validate(body)
    except ValidationError as error:
        for found in error.errors():
            assert found["type"] in WORDS
            fault = fault_of(found)
            assert fault.code in FAULTS
            if fault.code == "missing":
                assert place(body, fault.pointer.rpartition("/")[0]) is not None
            else:
                place(body, fault.pointer)


def test_all_that_pydantic_can_say_is_in_the_table_or_known_to_be_out_of_reach():
    assert set(WORDS) | set(OUT_OF_REACH.split()) == set(get_args(ErrorType))
    assert set(WORDS) & set(OUT_OF_REACH.split()) == set()


def test_a_body_has_no_member_that_a_pointer_could_take_for_something_else():
    names = {name for shape in SHAPES for name in shape.model_fields}
    assert names & {"path", "query", "header"} == set()


def test_a_sentence_names_what_is_wanted():
    with pytest.raises(ValidationError) as wrong:
        schemas.CreateRun.model_validate(
            {"priority": 1001, "inputs": [], "constraints": {"cpu": 0.0001, "ram_mb": True}}
        )
    told = {fault.pointer: (fault.code, fault.detail) for fault in map(fault_of, wrong.value.errors())}
    assert told == {
        "/image": ("missing", "is required"),
        "/priority": ("out_of_bounds", "must be at most 1000"),
        "/inputs": ("wrong_type", "must be a JSON object"),
        "/constraints/cpu": ("wrong_value", "0.0001 CPU has more than three decimals"),
        "/constraints/ram_mb": ("wrong_type", "must be a whole number"),
    }
    assert json.dumps(told)


async def test_however_many_faults_there_are_few_are_named(api: httpx.AsyncClient):
    """Naming each of them would take the server's time from everybody else."""
    many = {f"a{n}": 1 for n in range(100_000)}
    for body in (many, {"timeouts": dict(list(many.items())[:500])}):
        answer = await api.post("/runs/01890000-0000-7000-8000-000000000001/replay", json=body)
        assert 1 <= len(refused(answer, 422, "malformed")["errors"]) <= 100


async def test_a_member_that_is_there_twice_is_found_in_one_pass(api: httpx.AsyncClient):
    text = ",".join(f'"a{n}":1' for n in range(400_000))
    answer = await api.post("/runs", content=f'{{"image":"a","inputs":{{{text},"a7":1}}}}'.encode())
    assert refused(answer, 422, "malformed")["errors"][0]["code"] == "duplicate_member"
