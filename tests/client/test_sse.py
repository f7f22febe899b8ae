"""Server-sent events are read as their specification has it, however the network cuts them."""

from datetime import UTC, datetime
from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gyoza.client.sse import Message, Parser
from gyoza.models.lifecycle import EventType, OpRunState
from gyoza.models.run import EventEntry
from gyoza.server import sse
from gyoza.store.feed import Entry

EXAMPLE = (
    "\ufeff: a comment\n\nretry: 5\nid: 1\ndata: first\r\ndata:  second\r\rdata\n\nid\ndata: \u2028\x85é\x0b\n\n"
    "event: end\nid: a\0b\nother: x\nno colon\ndata:{}\n\nid: 9\n\ndata: never finished\n"
).encode()
MESSAGES = [
    Message("message", "first\n second"),
    Message("message", ""),
    Message("message", "\u2028\x85é\x0b"),
    Message("end", "{}"),
]


def read(*chunks: bytes) -> tuple[list[Message], str | None]:
    parser = Parser()
    return [message for chunk in chunks for message in parser.feed(chunk)], parser.last_id


def test_the_specification_is_followed():
    assert read(EXAMPLE) == (MESSAGES, "9")


@given(cuts=st.lists(st.integers(0, len(EXAMPLE)), max_size=20))
def test_it_does_not_matter_how_it_was_cut(cuts: list[int]):
    places = [0, *sorted(cuts), len(EXAMPLE)]
    assert read(*(EXAMPLE[start:end] for start, end in pairwise(places))) == (MESSAGES, "9")


def test_every_byte_may_come_alone():
    assert read(*(bytes([byte]) for byte in EXAMPLE)) == (MESSAGES, "9")


def test_what_nothing_was_said_of_is_not_sent():
    assert read(b": heartbeat\n\n")[1] is None
    assert Parser("5").last_id == "5"


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(msg=TEXTS, name=TEXTS, space=st.text(" \r\n\t", max_size=4))
def test_what_the_server_writes_is_what_is_read(msg: str, name: str, space: str):
    said = msgspec.json.encode(msg).decode()
    payload = msgspec.Raw(f'{{"a":{space}[{said}{space}]}}'.encode())
    event = EventEntry(3, EventType.INFO, datetime.now(UTC), msgspec.Raw(said.encode()), payload)
    news = sse.News(Entry(70, "r", name, (), event, OpRunState.RUNNING, False))
    ((message,), last) = read(sse.RETRY, sse.HEARTBEAT, news.of_cluster)
    row = msgspec.json.decode(message.data)
    assert (message.event, last) == ("message", "70")
    assert (row["pos"], row["run_id"], row["op_definition"], row["id"]) == (70, "r", name, 3)
    assert (row["msg"], row["payload"], row["state"]) == (msg, {"a": [msg]}, "RUNNING")
    ((message, end), last) = read(news.of_run, sse.position(70), sse.end(OpRunState.FAILED))
    assert (end, last) == (Message("end", '{"state":"FAILED"}'), "70")
    assert msgspec.json.decode(message.data) == {
        n: v for n, v in row.items() if n not in ("pos", "run_id", "op_definition")
    }
