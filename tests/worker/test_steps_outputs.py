"""What an op gives: outputs.json and error.json, its files; and everything an op can do wrong with them."""

import json
from typing import Any

import pytest

from .cluster import Cluster, Object

OUT = "(io / 'outputs.json')"
FILE = {"output_specs": {"report": {"type": "file"}}}


def failure(run: Object) -> str:
    """The one sentence that an op's author reads; its reason is `invalid_output`."""
    assert (run["state"], run["reason"], run["user_failures"]) == ("FAILED", "invalid_output", 1)
    message = run["execution_summary"]["error_message"]
    assert message.startswith("The op's outputs are invalid: ") and "\n" not in message
    return message.removeprefix("The op's outputs are invalid: ")


async def raw_outputs(cluster: Cluster, run_id: str) -> str:
    """The text of the run's outputs as the server sends it."""
    call = (await cluster.user._http.get(f"/runs/{run_id}")).text  # pyright: ignore[reportPrivateUsage]
    start = call.index('"outputs":') + len('"outputs":')
    return call[start : call.index(',"constraints"', start)]


async def test_numbers_survive_byte_for_byte(pipeline: Cluster) -> None:
    text = '{"b":0.10000000000000000000001,"a":[1e+300,-0.0,12345678901234567.25],"c":9007199254740993}'
    run = await pipeline.run(f"printf %s '{text}' > $GYOZA_IO_DIR/outputs.json")
    assert run["state"] == "COMPLETED"
    assert await raw_outputs(pipeline, run["id"]) == text


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("{", "outputs.json: body: not JSON"),
        ("", "outputs.json: body: not JSON"),
        ("[1]", "outputs.json must hold one JSON object"),
        ("null", "outputs.json must hold one JSON object"),
        ('{"x": NaN}', "/x: not a number that JSON and a double can hold"),
        ('{"x": 1e999}', "/x: not a number that JSON and a double can hold"),
        ('{"x": 123456789012345678901}', "/x: beyond 64 bits"),
        (r'{"x": "\u0000"}', "/x: NUL characters cannot be kept"),
        (r'{"x": "\ud800"}', "/x: a lone surrogate is no text"),
    ],
)
async def test_broken_outputs_fail_the_run(pipeline: Cluster, written: str, said: str) -> None:
    assert said in failure(await pipeline.python(f"{OUT}.write_text({written!r})"))


@pytest.mark.parametrize(
    ("doing", "said"),
    [
        ("os.symlink('/etc/passwd', io / 'outputs.json')", "'outputs.json' is a symbolic link"),
        ("os.mkfifo(io / 'outputs.json')", "'outputs.json' is not a regular file"),
        (f"{OUT}.mkdir()", "'outputs.json' is not a regular file"),
        (f"{OUT}.write_text('{{\"x\":\"' + 'y' * 2**22 + '\"}}')", "'outputs.json' is larger than 4194304 bytes"),
        (f"{OUT}.write_bytes(b'\\xff\\xfe')", "not UTF-8"),
        (f"{OUT}.write_text('{{\"x\":' + '[' * 200 + ']' * 200 + '}}')", "nested deeper than 100 levels"),
        (f"{OUT}.write_text('[' * 100000)", "nested deeper than 100 levels"),
        (
            "import shutil; shutil.rmtree(io); os.symlink('/tmp', io)",
            "'outputs.json' is a symbolic link, or lies behind one",
        ),
    ],
    ids=["link", "fifo", "folder", "too large", "not UTF-8", "deep", "very deep", "linked folder"],
)
async def test_what_is_no_proper_file_fails_the_run(pipeline: Cluster, doing: str, said: str) -> None:
    assert said in failure(await pipeline.python(doing))


@pytest.mark.parametrize(("levels", "ending"), [(99, ("COMPLETED", None)), (100, ("FAILED", "invalid_output"))])
async def test_outputs_may_nest_a_hundred_levels_also_inside_a_report(
    pipeline: Cluster, levels: int, ending: tuple[str, str | None]
) -> None:
    run = await pipeline.python(f"{OUT}.write_text('{{\"x\":' + '[' * {levels} + ']' * {levels} + '}}')")
    assert (run["state"], run["reason"]) == ending


async def test_an_op_that_removed_its_folder_gave_nothing(pipeline: Cluster) -> None:
    run = await pipeline.run("rm -r $GYOZA_IO_DIR")
    assert (run["state"], run["outputs"]) == ("COMPLETED", {})


async def test_every_fault_against_the_specs_is_named(pipeline: Cluster) -> None:
    specs = {"a": {"type": "int"}, "b": {"type": "string"}, "c": {"type": "list", "required": False}}
    run = await pipeline.python(f'{OUT}.write_text(\'{{"a": "1", "c": 5}}\')', output_specs=specs)
    assert failure(run) == (
        "'a' must be of type int, not string; 'b' is missing (string); 'c' must be of type list, not int"
    )


async def test_outputs_beyond_the_specs_are_welcome(pipeline: Cluster) -> None:
    run = await pipeline.python(f'{OUT}.write_text(\'{{"a": 1, "b": null}}\')', output_specs={"a": {"type": "float"}})
    assert run["outputs"] == {"a": 1, "b": None}


async def test_broken_outputs_are_not_tried_again(pipeline: Cluster) -> None:
    run = await pipeline.python(f"{OUT}.write_text('no')", retry_policy={"max_attempts": 3})
    assert (failure(run) != "", run["current_attempt"]) == (True, 1)


async def test_a_very_long_fault_is_cut(pipeline: Cluster) -> None:
    specs = {f"{'n' * 100}{number}": {"type": "int"} for number in range(1000)}
    run = await pipeline.run(output_specs=specs)
    assert len(failure(run)) < 8000


async def test_a_file_is_uploaded(pipeline: Cluster) -> None:
    doing = "(io / 'deep').mkdir(); (io / 'deep' / 'r.csv').write_text('a,b')"
    run = await pipeline.python(f'{doing}; {OUT}.write_text(\'{{"report": "deep/r.csv"}}\')', **FILE)
    report: Any = run["outputs"]["report"]
    assert set(report) == {"uri", "name", "size", "sha256", "media_type"}
    assert (report["name"], report["size"], report["media_type"]) == ("r.csv", 3, "text/csv")
    got = await pipeline.user.download_file(report["uri"], pipeline.place.folder / "got")
    assert got.read_text() == "a,b"
    got.unlink()


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ("../../../etc/passwd", "does not name a file inside the op's folder"),
        ("/etc/passwd", "does not name a file inside the op's folder"),
        ("link", "is a symbolic link"),
        ("behind/passwd", "lies behind one"),
        ("fifo", "is not a regular file"),
        ("none", "there is no file 'none' in GYOZA_IO_DIR"),
        (5, "must be the path of a file, relative to GYOZA_IO_DIR"),
        ({"uri": "gyoza://files/x"}, "must be the path of a file, relative to GYOZA_IO_DIR"),
        ("gyoza://files/x", "there is no file"),
        ("x" * 5000, "cannot be read"),
        (None, "'report' is missing (file)"),
    ],
)
async def test_a_file_that_cannot_be_had_fails_the_run(pipeline: Cluster, said: Any, fault: str) -> None:
    traps = "os.symlink('/etc/passwd', io / 'link'); os.symlink('/etc', io / 'behind'); os.mkfifo(io / 'fifo')"
    run = await pipeline.python(f"{traps}; {OUT}.write_text({json.dumps({'report': said})!r})", **FILE)
    assert fault in failure(run)


async def test_a_file_that_need_not_be_there_may_be_absent(pipeline: Cluster) -> None:
    run = await pipeline.run(output_specs={"report": {"type": "file", "required": False}})
    assert run["state"] == "COMPLETED"


async def test_an_error_in_the_ops_own_words(pipeline: Cluster) -> None:
    said = json.dumps({"error_message": "no such column: price"})
    run = await pipeline.python(f"(io / 'error.json').write_text({said!r}); print('noise'); sys.exit(1)")
    summary = run["execution_summary"]
    assert (run["reason"], summary["error_message"], summary["exit_code"]) == ("op_error", "no such column: price", 1)


@pytest.mark.parametrize(
    "doing",
    [
        "os.mkfifo(io / 'error.json')",
        "os.symlink('/etc/passwd', io / 'error.json')",
        "(io / 'error.json').write_text('{')",
        "(io / 'error.json').write_text('[]')",
        '(io / \'error.json\').write_text(\'{"error_message": 5, "retryable": "no"}\')',
        "(io / 'error.json').write_text('x' * 2**17)",
    ],
)
async def test_a_broken_error_file_counts_for_nothing(pipeline: Cluster, doing: str) -> None:
    run = await pipeline.python(f"{doing}\nprint('the last words', flush=True); sys.exit(3)")
    message = run["execution_summary"]["error_message"]
    assert message == "The op ended with exit code 3; its last output:\nthe last words"


async def test_a_very_long_error_is_cut(pipeline: Cluster) -> None:
    doing = "(io / 'error.json').write_text(json.dumps({'error_message': 'é' * 9000}))"
    run = await pipeline.python(f"{doing}; sys.exit(1)")
    assert run["execution_summary"]["error_message"] == "é" * 8000
