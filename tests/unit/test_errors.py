"""Every refusal, as one tree: each has its own code, and its docstring draws the tree as it is."""

from gyoza.models import errors
from gyoza.models.errors import Fault, GyozaError, InputValidationError, Malformed


def descendants(kind: type[GyozaError]) -> list[type[GyozaError]]:
    own = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    return [kind, *(below for child in own for below in descendants(child))]


def test_every_error_is_drawn_in_the_tree():
    drawn = set((errors.__doc__ or "").split())
    assert {kind.__name__ for kind in descendants(GyozaError)} <= drawn


def test_no_two_refusals_share_a_code():
    codes = [kind.code for kind in descendants(errors.Refusal)]
    assert sorted(codes) == sorted(set(codes))


def test_a_malformed_body_is_told_where_it_is_first_wrong_and_how_many_more():
    faults = [Fault("/cpu", "must be a number", "type"), Fault("", "is no object", "type")]
    assert Malformed(faults).detail == "/cpu: must be a number (and 1 more)"
    assert Malformed(faults[1:]).detail == "body: is no object"
    assert Malformed(faults).errors == faults


def test_the_texts_that_clients_know_are_kept():
    assert errors.RunNotFound("7").detail == "OpRun '7' not found"
    assert errors.DefinitionNotFound("op", "2").detail == "OpDefinition 'op' not found in version '2'"
    assert InputValidationError(["a", "b"]).errors == ["a", "b"]
