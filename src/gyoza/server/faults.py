"""What the shapes find wrong, in our words: a closed list of codes, and a sentence that names what is wanted.

Pydantic's own names and texts change between its versions, so none of them goes out. A test knows every name that it
has; one that is neither in this table nor known to be out of reach fails there.
"""

from collections.abc import Mapping
from typing import Any

from gyoza.models.errors import Fault
from gyoza.models.strictjson import pointer

_A_TIME = "must be a time with its zone, such as 2026-01-31T12:00:00+00:00"
_AN_OBJECT = "must be a JSON object"
_A_WHOLE_NUMBER = "must be a whole number"

WORDS: Mapping[str, tuple[str, str]] = {
    "missing": ("missing", "is required"),
    "extra_forbidden": ("unknown_member", "is not known here: leave it out"),
    "string_type": ("wrong_type", "must be a text"),
    "int_type": ("wrong_type", _A_WHOLE_NUMBER),
    "int_from_float": ("wrong_type", _A_WHOLE_NUMBER),
    "int_parsing": ("wrong_type", _A_WHOLE_NUMBER),
    "int_parsing_size": ("wrong_type", _A_WHOLE_NUMBER),
    "float_type": ("wrong_type", "must be a number"),
    "float_parsing": ("wrong_type", "must be a number"),
    "bool_type": ("wrong_type", "must be true or false"),
    "bool_parsing": ("wrong_type", "must be true or false"),
    "list_type": ("wrong_type", "must be a list"),
    "dict_type": ("wrong_type", _AN_OBJECT),
    "model_type": ("wrong_type", _AN_OBJECT),
    "model_attributes_type": ("wrong_type", _AN_OBJECT),
    "none_required": ("wrong_type", "must be null"),
    "finite_number": ("out_of_bounds", "must be a finite number"),
    "greater_than": ("out_of_bounds", "must be above {gt}"),
    "greater_than_equal": ("out_of_bounds", "must be at least {ge}"),
    "less_than": ("out_of_bounds", "must be below {lt}"),
    "less_than_equal": ("out_of_bounds", "must be at most {le}"),
    "multiple_of": ("wrong_value", "must be a multiple of {multiple_of}"),
    "too_short": ("too_short", "must have a length of at least {min_length}"),
    "too_long": ("too_long", "must have a length of at most {max_length}"),
    "string_too_short": ("too_short", "must have a length of at least {min_length}"),
    "string_too_long": ("too_long", "must have a length of at most {max_length}"),
    "string_unicode": ("wrong_format", "must be a text without lone surrogates"),
    "string_pattern_mismatch": ("wrong_format", "must match {pattern}"),
    "literal_error": ("wrong_value", "must be {expected}"),
    "enum": ("wrong_value", "must be {expected}"),
    "datetime_type": ("wrong_type", _A_TIME),
    "datetime_parsing": ("wrong_format", _A_TIME),
    "datetime_object_invalid": ("wrong_format", _A_TIME),
    "datetime_from_date_parsing": ("wrong_format", _A_TIME),
    "timezone_aware": ("wrong_format", _A_TIME),
    "uuid_type": ("wrong_type", "must be a UUID"),
    "uuid_parsing": ("wrong_format", "must be a UUID"),
    "uuid_version": ("wrong_format", "must be a UUID of version {expected_version}"),
    "value_error": ("wrong_value", "{error}"),
}
"""Pydantic's name -> our code and sentence, with what pydantic says of the bound in braces."""


def fault_of(error: Mapping[str, Any]) -> Fault:
    """A fault from one of pydantic's error entries. Its place is a member of the body, or begins with query, ..."""
    code, sentence = WORDS.get(error["type"], ("wrong_value", ""))
    detail = sentence.format(**error.get("ctx", {})) or str(error["msg"])
    return Fault(pointer(*error["loc"]), detail, code)
