"""schemathesis, all checks, on every call of the OpenAPI document, against a real server on a real socket.

Its seed is fixed and its examples are few, so that it is the same run each time; GYOZA_FUZZ_EXAMPLES and
GYOZA_FUZZ_SEED make it another and a longer one. `fuzzing/` holds what it has to know.
"""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from gyoza.server import watching

from .conftest import KEY, Listening

EXAMPLES = os.environ.get("GYOZA_FUZZ_EXAMPLES", "10")
SEED = os.environ.get("GYOZA_FUZZ_SEED", "1")


@pytest.mark.timeout(3600 if "GYOZA_FUZZ_EXAMPLES" in os.environ else 600)
async def test_no_request_is_answered_otherwise_than_the_document_says(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
):
    # A stream goes on for as long as its run is not over, and that of all runs for ever.
    monkeypatch.setattr(watching, "LONGEST_S", 0.1)
    host, port = listening.address
    arguments = ["--checks", "all", "--max-examples", EXAMPLES, "--seed", SEED, "--no-shrink", "--continue-on-failure"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", f"http://{host}:{port}/openapi.json", "--no-color"),
        *(*arguments, "--header", f"X-API-Key: {KEY}"),
        cwd=Path(__file__).parent / "fuzzing",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await process.communicate()
    assert process.returncode == 0, told.decode()
