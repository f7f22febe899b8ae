"""JSON from users is kept as it was received; what could not be given back as it came is refused by its place."""

from typing import Any

import httpx
import pytest

from .actors import in_state, pointers, refused, submit, told

ODD = (
    '{"z":1,"a":{"z":1E+5,"a":[1.00000000000000000000000000001,-0.0,1.0,1e-7,0.1]},'
    '"big":9223372036854775807,"small":-9223372036854775808,"ten":1.10,"text":"\\ud83d\\ude00 \u00e9 \\u00e9 \\/ \\t",'
    '"deep":{"":[],"~/":null,"b":true,"largest":1.7976931348623157e308}}'
)
"""An object that a reader and a writer of JSON would not give back as it is."""


def sent(text: str) -> dict[str, Any]:
    return {"content": text.encode(), "headers": {"content-type": "application/json"}}


async def test_inputs_are_given_back_byte_for_byte(api: httpx.AsyncClient):
    answer = await api.post("/runs", **sent(f'{{"image": "odd", "inputs": {ODD}}}'))
    run = told(answer, 201)
    for path in (f"/runs/{run['id']}", "/runs?image=odd", f"/runs/{run['id']}/attempts"):
        assert f'"inputs":{ODD}' in (await api.get(path)).text
    assert f'"inputs":{ODD}' in answer.text


async def test_inputs_of_a_definition_are_given_back_byte_for_byte(api: httpx.AsyncClient):
    told(await api.post("/definitions", json={"id": "odd", "image": "a", "input_specs": {"x": {"type": "any"}}}), 201)
    run = told(await api.post("/definitions/odd/runs", **sent(f'{{"inputs": {{"x": {ODD}}}}}')), 201)
    assert f'"inputs":{{"x":{ODD}}}' in (await api.get(f"/runs/{run['id']}")).text


async def test_outputs_are_given_back_byte_for_byte(api: httpx.AsyncClient):
    run = await in_state(api, "RUNNING")
    path = f"/runs/{run['id']}"
    assert f'"outputs":{ODD}' in (await api.patch(path, **sent(f'{{"outputs": {ODD}}}'))).text
    event = f'{{"type": "COMPLETED", "msg": "", "payload": {{"outputs": {ODD}}}}}'
    assert f'"outputs":{ODD}' in (await api.post(f"{path}/events", **sent(event))).text
    for reading in (path, f"{path}/attempts", "/runs?state=COMPLETED&limit=1"):
        assert f'"outputs":{ODD}' in (await api.get(reading)).text


async def test_payloads_are_given_back_byte_for_byte(api: httpx.AsyncClient):
    path = f"/runs/{(await submit(api))['id']}"
    told(await api.post(f"{path}/events", **sent(f'{{"type": "INFO", "msg": "", "payload": {ODD}}}')))
    for reading in (path, f"{path}/events", f"{path}/attempts"):
        assert f'"payload":{ODD}' in (await api.get(reading)).text


async def test_attributes_of_event_delivery_are_given_back_byte_for_byte(api: httpx.AsyncClient):
    body = f'{{"image": "a", "event_delivery": {{"topic": "t", "attributes": {ODD}}}}}'
    answer = await api.post("/runs", **sent(body))
    for text in (answer.text, (await api.get(f"/runs/{told(answer, 201)['id']}")).text):
        assert f'"attributes":{ODD}' in text


REFUSED = {
    "NaN": "number_out_of_range",
    "Infinity": "number_out_of_range",
    "-Infinity": "number_out_of_range",
    "1e400": "number_out_of_range",
    "-1E400": "number_out_of_range",
    "9223372036854775808": "integer_out_of_range",
    "-9223372036854775809": "integer_out_of_range",
    '"\\ud800"': "lone_surrogate",
    '"a\\udc00b"': "lone_surrogate",
    '"\\u0000"': "nul_character",
    '{"\\u0000": 1}': "nul_character",
    '{"\\ud800": 1}': "lone_surrogate",
}


@pytest.mark.parametrize("value", REFUSED)
async def test_what_cannot_be_kept_is_refused_by_its_place(api: httpx.AsyncClient, value: str):
    run = await in_state(api, "RUNNING")
    bodies = {
        "/inputs/a~1b/1": ("POST", "/runs", f'{{"image": "a", "inputs": {{"a/b": [0, {value}]}}}}'),
        "/outputs/x": ("PATCH", f"/runs/{run['id']}", f'{{"outputs": {{"x": {value}}}}}'),
        "/payload/x": (
            "POST",
            f"/runs/{run['id']}/events",
            f'{{"type": "INFO", "msg": "", "payload": {{"x": {value}}}}}',
        ),
        "/msg": ("POST", f"/runs/{run['id']}/events", f'{{"type": "INFO", "msg": {value}}}'),
        "/input_specs/x/default": (
            "POST",
            "/definitions",
            f'{{"id": "d", "image": "a", "input_specs": {{"x": {{"type": "any", "default": {value}}}}}}}',
        ),
        "/colour": ("POST", "/runs", f'{{"image": "a", "colour": {value}}}'),
    }
    for place, (method, path, body) in bodies.items():
        answer = await api.request(method, path, **sent(body))
        assert [(fault["pointer"], fault["code"]) for fault in refused(answer, 422)["errors"]] == [
            (place, REFUSED[value])
        ]


@pytest.mark.parametrize("key", ["\\ud800", "\\u0000"])
async def test_below_a_key_that_cannot_be_kept_the_key_is_the_fault(api: httpx.AsyncClient, key: str):
    for value in ("NaN", '{"x": NaN}', '["\\ud800"]'):
        answer = await api.post("/runs", **sent(f'{{"image": "a", "inputs": {{"{key}": {value}}}}}'))
        assert pointers(answer) == {"/inputs"}


async def test_every_place_that_cannot_be_kept_is_named(api: httpx.AsyncClient):
    answer = await api.post("/runs", **sent('{"image": "\\u0000", "inputs": {"a": NaN, "b": {"c": [1e999]}}}'))
    assert pointers(answer) == {"/image", "/inputs/a", "/inputs/b/c/0"}


async def test_nesting_goes_down_a_hundred_levels(api: httpx.AsyncClient):
    def body(levels: int, opening: str, closing: str) -> str:
        """The body and its inputs are two levels by themselves."""
        return f'{{"image": "a", "inputs": {{"x": {opening * (levels - 2)}{closing * (levels - 2)}}}}}'

    told(await api.post("/runs", **sent(body(100, "[", "]"))), 201)
    for levels in (101, 102, 500, 5_000, 500_000):
        (fault,) = refused(await api.post("/runs", **sent(body(levels, "[", "]"))), 422)["errors"]
        assert fault["code"] == "too_deep"
    (fault,) = refused(await api.post("/runs", **sent(body(101, '{"y":', "}").replace(":}", ":0}"))), 422)["errors"]
    assert fault["code"] == "too_deep"


MOST_JSON, MOST_EVENT = 4 * 2**20, 64 * 2**10


def text_of(size: int) -> str:
    """`{"x":"..."}` of so many bytes."""
    return '{"x":"' + "é" * ((size - 8) // 2) + "a" * (size % 2) + '"}'


async def test_inputs_and_outputs_have_a_bound_of_four_megabytes(api: httpx.AsyncClient):
    run = await in_state(api, "RUNNING")
    told(
        await api.post("/definitions", json={"id": "big", "image": "a", "input_specs": {"x": {"type": "string"}}}), 201
    )
    calls = {
        "/inputs": [
            ("POST", "/runs", '{"image":"a","inputs":%s}', 201),
            ("POST", "/definitions/big/runs", '{"inputs":%s}', 201),
        ],
        "/outputs": [("PATCH", f"/runs/{run['id']}", '{"outputs":%s}', 200)],
        "/payload/outputs": [
            ("POST", f"/runs/{run['id']}/events", '{"type":"COMPLETED","msg":"","payload":{"outputs":%s}}', 200)
        ],
    }
    for place, ways in calls.items():
        for method, path, body, status in ways:
            assert pointers(await api.request(method, path, **sent(body % text_of(MOST_JSON + 1)))) == {place}
            told(await api.request(method, path, **sent(body % text_of(MOST_JSON))), status)


async def test_the_msg_and_the_payload_of_an_event_have_a_bound_of_64_kilobytes(api: httpx.AsyncClient):
    path = f"/runs/{(await submit(api))['id']}/events"
    told(await api.post(path, json={"type": "INFO", "msg": "a" * (MOST_EVENT - 2)}))
    assert pointers(await api.post(path, json={"type": "INFO", "msg": "a" * (MOST_EVENT - 1)})) == {"/msg"}
    told(await api.post(path, **sent(f'{{"type":"INFO","msg":"","payload":{text_of(MOST_EVENT)}}}')))
    answer = await api.post(path, **sent(f'{{"type":"INFO","msg":"","payload":{text_of(MOST_EVENT + 1)}}}'))
    assert pointers(answer) == {"/payload"}


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "not_json"),
        (b"{", "not_json"),
        (b"{'image': 'a'}", "not_json"),
        (b'{"image": "a",}', "not_json"),
        (b'{"image": "a"} {}', "not_json"),
        (b'{"image": "a\nb"}', "not_json"),
        (b"image=a", "not_json"),
        (b'{"image": "\xff"}', "not_utf8"),
        ('{"image": "é"}'.encode("latin-1"), "not_utf8"),
        ('{"image": "a"}'.encode("utf-16"), "not_utf8"),
        (b'{"image": "a", "inputs": {"x": ' + b"9" * 5000 + b"}}", None),
    ],
)
async def test_what_is_no_json_is_refused(api: httpx.AsyncClient, content: bytes, code: str | None):
    run = await submit(api)
    for method, path in (("POST", "/runs"), ("PATCH", f"/runs/{run['id']}"), ("POST", "/definitions")):
        (fault,) = refused(await api.request(method, path, content=content), 422, "malformed")["errors"]
        assert code is None or (fault["pointer"], fault["code"]) == ("", code)


@pytest.mark.parametrize("content", [b"[]", b'"text"', b"5", b"null", b"true"])
async def test_a_body_that_is_no_object_is_refused(api: httpx.AsyncClient, content: bytes):
    run = (await submit(api))["id"]
    paths = ("/runs", "/definitions", f"/runs/{run}/events", "/workers/w/claim", "/workers/w/reports")
    for method, path in [("PATCH", f"/runs/{run}"), ("PUT", "/workers/w"), *(("POST", path) for path in paths)]:
        assert pointers(await api.request(method, path, content=content)) == {""}


async def test_the_name_of_the_content_type_does_not_matter(api: httpx.AsyncClient):
    for name in ("application/json; charset=utf-8", "text/plain", "application/x-www-form-urlencoded"):
        told(await api.post("/runs", content=b'{"image": "a"}', headers={"content-type": name}), 201)


@pytest.mark.parametrize(
    ("inputs", "where"),
    [
        ('{"a": {"b": 1e999, "b": 1}}', "/inputs/a"),
        ('{"a": [1, {"b": 1, "c": 2, "b": 1}]}', "/inputs/a/1"),
        ('{"a": 1, "a": "\\u0000"}', "/inputs"),
    ],
)
async def test_a_member_that_is_there_twice_is_refused_by_its_place(api: httpx.AsyncClient, inputs: str, where: str):
    answer = await api.post("/runs", **sent(f'{{"image": "a", "inputs": {inputs}}}'))
    assert [(each["pointer"], each["code"]) for each in refused(answer, 422)["errors"]] == [(where, "duplicate_member")]
