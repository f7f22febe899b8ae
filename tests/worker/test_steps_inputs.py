"""What an op is given: inputs.json as the run's inputs were received, and the files that they name."""

import io

import pytest

from .cluster import KEY, URL, Cluster

SPECS = {"input_specs": {"data": {"type": "file"}}, "output_specs": {"seen": {"type": "any"}}}
SEE = "told = json.loads((io / 'inputs.json').read_text())\nseen = "
TELL = "\n(io / 'outputs.json').write_text(json.dumps({'seen': seen}))"


async def submit_text(cluster: Cluster, name: str, body: str) -> str:
    """A run of the op `name`, its inputs as they stand in `body`."""
    headers = {"Content-Type": "application/json", "X-API-Key": KEY}
    http = cluster.user._http  # pyright: ignore[reportPrivateUsage]
    answer = await http.post(f"{URL}/definitions/{name}/runs", content=body.encode(), headers=headers)
    return answer.json()["id"]


async def test_inputs_reach_the_op_byte_for_byte(pipeline: Cluster) -> None:
    text = '{"b":0.10000000000000000000001,"a":[1e+300,-0.0,12345678901234567.25],"c":"é/\\u0041"}'
    program = 'cp $GYOZA_IO_DIR/inputs.json $GYOZA_IO_DIR/copy; echo \'{"copy": "copy"}\' > $GYOZA_IO_DIR/outputs.json'
    specs = {"input_specs": {name: {"type": "any"} for name in "abc"}, "output_specs": {"copy": {"type": "file"}}}
    first = await pipeline.run(program, {"a": 1, "b": 1, "c": 1}, **specs)
    run = await pipeline.ended(await submit_text(pipeline, first["op_definition"], f'{{"inputs": {text}}}'))
    got = await pipeline.user.download_file(run["outputs"]["copy"]["uri"], pipeline.place.folder / "copy")
    assert got.read_text() == text
    got.unlink()


async def test_an_op_without_inputs_gets_an_empty_object(pipeline: Cluster) -> None:
    run = await pipeline.python(f"{SEE}told{TELL}")
    assert run["outputs"] == {"seen": {}}


async def test_the_environment_names_run_and_attempt(pipeline: Cluster) -> None:
    run = await pipeline.python(f"seen = [os.environ['GYOZA_RUN_ID'], os.environ['GYOZA_ATTEMPT']]{TELL}")
    assert run["outputs"]["seen"] == [run["id"], "1"]


async def test_a_file_is_fetched_and_named_by_its_path(pipeline: Cluster) -> None:
    file = await pipeline.user.upload_file(io.BytesIO(b"a,b"), name="x.csv")
    see = f"{SEE}[pathlib.Path(told['data']).read_text(), told['data'].startswith(str(io))]{TELL}"
    run = await pipeline.python(see, {"data": file["uri"]}, **SPECS)
    assert run["outputs"]["seen"] == ["a,b", True]


async def test_one_file_may_be_two_inputs(pipeline: Cluster) -> None:
    file = await pipeline.user.upload_file(io.BytesIO(b"a,b"), name="x.csv")
    see = f"{SEE}[pathlib.Path(told[name]).read_text() for name in ('../left', 'right')]{TELL}"
    specs = {"input_specs": {"../left": {"type": "file"}, "right": {"type": "file"}}}
    run = await pipeline.python(see, {"../left": file["uri"], "right": file["uri"]}, **specs)
    assert run["outputs"]["seen"] == ["a,b", "a,b"]


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("gyoza://files/0197c1f0-0000-7000-8000-000000000000", "the server has no file"),
        ("gyoza://files/not-an-id", "the server has no file"),
        ("https://example.org/x.csv", "this worker fetches gyoza://files/<id> only, not 'https://example.org/x.csv'"),
        ("file:///etc/passwd", "this worker fetches gyoza://files/<id> only"),
        ("s3://bucket/key", "this worker fetches gyoza://files/<id> only"),
        ("gyoza://files/..", "'..' is not the id of a file"),
        ("gyoza://files/../../../outside", "'../../../outside' is not the id of a file"),
        ("gyoza://files/a/b", "'a/b' is not the id of a file"),
    ],
)
async def test_a_file_that_cannot_be_fetched_fails_the_run(pipeline: Cluster, uri: str, said: str) -> None:
    run = await pipeline.python("", {"data": uri}, input_specs={"data": {"type": "file"}})
    assert (run["state"], run["reason"], run["current_attempt"]) == ("FAILED", "not_allowed", 1)
    assert run["execution_summary"]["error_message"].startswith("Input 'data': ")
    assert said in run["execution_summary"]["error_message"]
    assert "STARTED" not in [kind for kind, _ in await pipeline.told(run["id"])]


async def test_a_bundle_that_the_server_lost_fails_the_run(pipeline: Cluster) -> None:
    """Only a worker that has never had it needs to ask."""
    kept = list((pipeline.place.folder / "bundles").glob("*"))
    for path in kept:
        path.unlink()
    first = await pipeline.user.get_definition((await pipeline.run())["op_definition"])
    for path in (pipeline.place.folder / "bundles").glob("*"):
        path.unlink()
    missing = {**first["bundle"], "uri": "gyoza://files/0197c1f0-0000-7000-8000-000000000000"}
    run = await pipeline.run(bundle=missing)
    assert (run["reason"], run["current_attempt"]) == ("bundle_broken", 1)
    assert run["execution_summary"]["error_message"].endswith("deploy the op anew")


async def test_a_bundle_with_another_content_fails_the_run(pipeline: Cluster) -> None:
    first = await pipeline.user.get_definition((await pipeline.run())["op_definition"])
    run = await pipeline.run(bundle={**first["bundle"], "digest": f"sha256:{'0' * 64}"})
    assert (run["reason"], run["user_failures"]) == ("bundle_broken", 1)
    assert "not the one that was deployed" in run["execution_summary"]["error_message"]
