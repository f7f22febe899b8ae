"""What an op says while it runs, however it says it."""

import pytest

from gyoza.worker.steps.events import LONGEST_LINE, Line, Lines

from .cluster import Cluster

EVENTS = "events = open(io / 'events.ndjson', 'ab', buffering=0)\n"
SAY = EVENTS + "def say(kind, msg): events.write(json.dumps({'type': kind, 'msg': msg}).encode() + b'\\n')\n"


def noted(told: list[tuple[str, object]]) -> list[str]:
    return [str(msg) for kind, msg in told if kind == "ERROR"]


def said(told: list[tuple[str, object]]) -> list[object]:
    return [msg for kind, msg in told if kind == "INFO"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_lines_are_the_same_however_they_arrive(size: int) -> None:
    data = b"one\n\ntwo\xff\xfe\nthree"
    lines, cut = Lines(), list[Line]()
    for start in range(0, len(data), size):
        cut += lines.cut(data[start : start + size])
    assert cut == [(b"one", 4, False), (b"", 5, False), (b"two\xff\xfe", 11, False)]
    assert lines.last() == (b"three", len(data), False)


def test_of_an_endless_line_only_the_beginning_comes() -> None:
    lines, cut = Lines(), list[Line]()
    for _ in range(10):
        cut += lines.cut(b"x" * LONGEST_LINE)
    cut += lines.cut(b"x\nnext\n")
    assert [len(line.text) for line in cut] == [2 * LONGEST_LINE, 4]
    assert lines.last() == (b"", 10 * LONGEST_LINE + 7, False)


@pytest.mark.parametrize("cut_at", range(3))
def test_lines_go_on_behind_any_line_as_if_nothing_had_been_between(cut_at: int) -> None:
    data = b"one\n" + b"x" * (2 * LONGEST_LINE) + b"\ntwo\n"
    whole = every_line(Lines(), data)
    assert [line.text[:3] for line in whole] == [b"one", b"xxx", b"two"]
    place = whole[cut_at]
    rest = Lines(place.end, is_cut=place.is_cut)
    assert [line.text[:3] for line in every_line(rest, data[place.end :])] == [b"xxx", b"two"][cut_at:]
    assert rest.last().end == len(data)


def every_line(lines: Lines, data: bytes) -> list[Line]:
    parts = [data[start : start + 50_000] for start in range(0, len(data), 50_000)]
    return [line for part in parts for line in lines.cut(part)]


async def test_torn_lines_are_put_together(pipeline: Cluster) -> None:
    line = '{"type": "INFO", "msg": "über"}\n'
    tear = f"for byte in {line!r}.encode(): events.write(bytes([byte])); time.sleep(0.005)"
    run = await pipeline.python(EVENTS + tear)
    assert said(await pipeline.told(run["id"])) == ["über"]


async def test_a_last_line_needs_no_line_feed(pipeline: Cluster) -> None:
    run = await pipeline.python(
        EVENTS + 'events.write(b\'{"type": "INFO", "msg": "a"}\\n\\n{"type": "INFO", "msg": "b"}\')'
    )
    assert said(await pipeline.told(run["id"])) == ["a", "b"]


async def test_what_is_no_event_is_noted_and_harms_no_other(pipeline: Cluster) -> None:
    lines = [
        b"\x00\xff\xfe binary \x80",
        b"{",
        b"5",
        b'{"type": "COMPLETED", "msg": "done"}',
        b'{"type": "PROGRESS", "msg": 101}',
        b'{"type": "PROGRESS", "msg": 1.0}',
        b'{"type": "PROGRESS", "msg": true}',
        b'{"type": "INFO", "msg": 5}',
        b'{"type": "INFO", "msg": "\\ud800"}',
        b'{"msg": NaN}',
        b"[" * 10_000,
    ]
    good = b'{"type": "INFO", "msg": "still heard", "extra": 1}'
    run = await pipeline.python(EVENTS + f"for line in {[*lines, good]!r}: events.write(line + b'\\n')")
    told = await pipeline.told(run["id"])
    assert (run["state"], said(told), run["progress"]) == ("COMPLETED", ["still heard"], 100)
    notes = noted(told)
    assert len(notes) == len(lines)
    assert "not UTF-8" in notes[0] and "COMPLETED" in notes[3] and "0 to 100" in notes[4]


async def test_progress_is_told_at_most_twice_a_second_and_the_last_always(pipeline: Cluster) -> None:
    run = await pipeline.python(SAY + "for n in range(90): say('PROGRESS', n); time.sleep(0.01)\nsys.exit(1)")
    progress = [msg for kind, msg in await pipeline.told(run["id"]) if kind == "PROGRESS"]
    assert 2 <= len(progress) <= 5
    assert (progress[-1], run["progress"]) == (89, 89)
    assert progress == sorted(progress)


async def test_progress_keeps_its_place_among_the_others(pipeline: Cluster) -> None:
    run = await pipeline.python(SAY + "say('PROGRESS', 1); say('PROGRESS', 2); say('INFO', 'a'); say('PROGRESS', 3)")
    told = await pipeline.told(run["id"])
    assert told[-4:] == [("PROGRESS", 2), ("INFO", "a"), ("PROGRESS", 3), ("COMPLETED", "Completed")]


async def test_too_many_events_end_in_one_marker(pipeline: Cluster) -> None:
    run = await pipeline.python(SAY + "for n in range(10_050): say('INFO', str(n))")
    told = await pipeline.told(run["id"])
    assert said(told) == [str(n) for n in range(10_000)]
    assert noted(told) == ["The op wrote more than 10000 events: the rest is dropped"]
    assert run["state"] == "COMPLETED"


async def test_progress_that_was_never_told_does_not_count(pipeline: Cluster) -> None:
    run = await pipeline.python(SAY + "for n in range(30_000): say('PROGRESS', n % 100)\nsay('INFO', 'end')")
    told = await pipeline.told(run["id"])
    assert (said(told), noted(told)) == (["end"], [])


@pytest.mark.parametrize(
    ("doing", "note"),
    [
        ("os.mkfifo(io / 'events.ndjson')", "'events.ndjson' is not a regular file"),
        ("os.symlink('/etc/passwd', io / 'events.ndjson')", "'events.ndjson' is a symbolic link"),
        ("(io / 'events.ndjson').mkdir()", "'events.ndjson' is not a regular file"),
    ],
)
async def test_what_is_no_proper_file_is_noted_once(pipeline: Cluster, doing: str, note: str) -> None:
    run = await pipeline.python(f"{doing}; time.sleep(0.2)")
    (only,) = noted(await pipeline.told(run["id"]))
    assert (run["state"], only.startswith(f"Events cannot be read: {note}")) == ("COMPLETED", True)


async def test_a_line_of_10_mb_is_noted_once(pipeline: Cluster) -> None:
    run = await pipeline.python(SAY + "events.write(b'x' * 10_000_000 + b'\\n'); say('INFO', 'after')")
    told = await pipeline.told(run["id"])
    (only,) = noted(told)
    assert only.startswith("An event of the op was longer than 65536 bytes")
    assert said(told) == ["after"]


async def test_an_event_as_long_as_it_may_be_arrives(pipeline: Cluster) -> None:
    run = await pipeline.python(SAY + f"say('INFO', 'x' * {LONGEST_LINE - 40})")
    assert [len(str(msg)) for msg in said(await pipeline.told(run["id"]))] == [LONGEST_LINE - 40]


async def test_events_of_an_op_that_fails_come_before_its_end(pipeline: Cluster) -> None:
    run = await pipeline.python(SAY + "say('INFO', 'dying'); os.abort()")
    kinds = [kind for kind, _ in await pipeline.told(run["id"])]
    assert kinds == ["STARTED", "INFO", "FAILED"]


async def test_events_carry_the_workers_time(pipeline: Cluster) -> None:
    run = await pipeline.python(SAY + "say('INFO', 'now')")
    (info,) = [event for event in await pipeline.events(run["id"]) if event["type"] == "INFO"]
    assert info["at"] <= info["t"] or info["at"][:16] == info["t"][:16]
