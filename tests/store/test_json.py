"""JSON is kept as it was received: key order, big exponents, long decimals, all of it."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from gyoza.models.definition import EventDelivery
from gyoza.models.lifecycle import EventType
from gyoza.models.resources import Constraints
from gyoza.models.run import EventEntry
from gyoza.policy.life import Happening, Life, happen
from gyoza.store import definitions, events, new_runs, pages, runs
from gyoza.store.database import Connection, Database
from gyoza.store.ids import new_id

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TEXTS = [
    b'{"z":1,"a":2,"m":{"b":[],"a":{}}}',
    b'{"x":1e300,"y":0.1000000000000000000000000000001,"z":-0.0,"n":12345678901234567890.123456789}',
    b'{"x":1E+05,"y":100000.0,"z":1e5}',
    '{"text":"größe ✓ \U0001f95f","\\u00e9":"\\u00e9"}'.encode(),
    b'{"a":1,"a":2}',
    b'{ "spaced" : [ 1 , 2 ] }',
    b"{}",
    b'{"null":null,"deep":' + b"[" * 90 + b"]" * 90 + b"}",
    b'{"quote":"\\" \\\\ \\/ \\n % %s {}"}',
]


async def kept(connection: Connection, **values: Any) -> str:
    run_id = new_id(NOW)
    how = {"priority": 5, "constraints": Constraints(), "engines": ["docker"], "inputs": {}}
    await new_runs.insert(connection, [new_runs.NewRun(run_id, NOW, **{**how, **values})])
    return run_id


@pytest.mark.parametrize("text", TEXTS)
async def test_inputs_come_back_byte_for_byte(shelf: Database, text: bytes):
    async with shelf.connection() as connection:
        run_id = await kept(connection, inputs=msgspec.Raw(text))
        assert bytes((await pages.get(connection, run_id)).inputs) == text


@pytest.mark.parametrize("text", TEXTS)
async def test_outputs_come_back_byte_for_byte(shelf: Database, text: bytes):
    async def work(connection: Connection) -> None:
        run_id = await kept(connection)
        life = (await runs.lock(connection, [run_id]))[run_id]
        ended = Happening(EventType.COMPLETED, payload={"outputs": {}}, outputs=msgspec.Raw(text))
        life: Life = happen(happen(life, Happening(EventType.STARTED), NOW), ended, NOW)
        await runs.write(connection, [life], NOW)
        run = await pages.get(connection, run_id)
        assert bytes(run.outputs) == text

    await shelf.transact(work)


@pytest.mark.parametrize("text", TEXTS)
async def test_payloads_come_back_byte_for_byte(shelf: Database, text: bytes):
    async with shelf.connection() as connection:
        run_id = await kept(connection)
        entry = EventEntry(0, EventType.INFO, NOW, "msg", msgspec.Raw(text))
        await events.insert(connection, [(run_id, entry)])
        (found,) = await events.page(connection, run_id, after=-1, attempt=None, limit=10)
        assert bytes(found.payload) == text


@pytest.mark.parametrize(
    "text", ["", "größe ✓ \U0001f95f", 'a "quoted" \\ line\nand \t %s {}', "null", "7", "\x7f\x01"]
)
async def test_messages_come_back_equal(shelf: Database, text: str):
    async with shelf.connection() as connection:
        run_id = await kept(connection)
        await events.insert(connection, [(run_id, EventEntry(0, EventType.INFO, NOW, text))])
        (found,) = await events.newest(connection, run_id, 1)
        assert msgspec.json.decode(found.msg) == text
        assert found.payload is None


async def test_delivery_attributes_come_back_byte_for_byte(shelf: Database):
    async with shelf.connection() as connection:
        attributes: Any = msgspec.Raw(b'{"b":1.0e10,"a":"x"}')
        run_id = await kept(connection, event_delivery=EventDelivery("topic", attributes))
        delivery = (await pages.get(connection, run_id)).event_delivery
    assert delivery is not None
    assert (delivery.topic, bytes(delivery.attributes)) == ("topic", b'{"b":1.0e10,"a":"x"}')  # type: ignore[arg-type]


async def test_a_definition_s_content_comes_back_as_it_was_written(shelf: Database):
    async with shelf.connection() as connection, connection.transaction(force_rollback=True):
        text = '{"default": 1.50, "z": 1, "a": 2}'
        await definitions.deploy(connection, "kept", None, "sha256:1", text, NOW)
        found = await definitions.latest(connection, "kept")
    assert found is not None
    assert bytes(found.content) == text.encode()


async def test_a_number_is_stored_as_the_text_it_was_given_in(shelf: Database):
    """`jsonb` would make 1E400 an error and 1.10 into 1.1."""
    async with shelf.connection() as connection:
        run_id = await kept(connection, inputs=msgspec.Raw(b'{"x":1.10}'))
        cursor = await connection.execute("SELECT inputs::text FROM runs WHERE id = %s", [run_id])
        assert await cursor.fetchone() == ('{"x":1.10}',)
