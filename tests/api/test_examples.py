"""The examples of the OpenAPI document are what a server really answers, and fit the document in every member."""

import json

import httpx
import pytest

from gyoza.policy.liveness import Pace
from tools.reference import EXAMPLES, story

from .actors import Json, told
from .openapi import Document


@pytest.fixture
def pace() -> Pace:
    return Pace()


@pytest.fixture
async def document(api: httpx.AsyncClient) -> Json:
    return told(await api.get("/openapi.json"))


async def test_the_story_is_answered_as_it_is_written_down(alone: httpx.AsyncClient):
    recorded = await story.record(alone)
    assert recorded == json.loads(EXAMPLES.read_text()), "run make docs"


async def test_every_call_has_its_examples(document: Json):
    for operation in Document(document).operations.values():
        name = operation["operationId"]
        for content in operation.get("requestBody", {}).get("content", {}).values():
            assert "example" in content, f"tell of {name} in tools/reference/story.py"
        answers = [answer for status, answer in operation["responses"].items() if int(status) < 400]
        contents = [content for answer in answers for content in answer.get("content", {}).values()]
        assert not contents or any("example" in content for content in contents), f"tell of {name} in the story"
        for parameter in operation["parameters"]:
            assert "example" in parameter or not parameter.get("required"), f"{name}: {parameter['name']}"


async def test_every_example_fits_its_schema_to_the_member(document: Json):
    read = Document(document)
    for operation in read.operations.values():
        bodies = [operation.get("requestBody", {})]
        for holder in (*bodies, *(answer for answer in operation["responses"].values())):
            for content in holder.get("content", {}).values():
                if "schema" in content and "example" in content:
                    assert read.differences(content["schema"], content["example"]) == [], operation["operationId"]
        for parameter in operation["parameters"]:
            if "example" in parameter:
                assert read.differences(parameter["schema"], parameter["example"]) == [], operation["operationId"]


def test_every_step_of_the_story_is_a_call():
    told_of = {step.operation for step in story.STORY}
    assert set(json.loads(EXAMPLES.read_text())) <= told_of
