"""What is run while everything fails: small programs whose every event and output can be told to be right or wrong.

An event is a line `<attempt>.<number>`, so that none can be lost, doubled or swapped unseen; the outputs name the run
and the attempt that wrote them, and repeat the inputs. A program that cannot write says so by its exit code.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from gyoza.client import GyozaClient
from worker.cluster import ARCHIVE, ENTRY

SPEAKS = r"""
cd "$GYOZA_IO_DIR" || exit 9
say() { echo "line $1"; printf '{"type": "INFO", "msg": "%s.%s"}\n' "$GYOZA_ATTEMPT" "$1" >>events.ndjson || exit 9; }
count() { n=0; while [ $n -lt $1 ]; do say $n; n=$((n + 1)); [ -z "$2" ] || sleep $2; done; }
answer() {
    got=$(cat inputs.json)
    printf '{"run": "%s", "attempt": %s, "got": %s}' "$GYOZA_RUN_ID" "$GYOZA_ATTEMPT" "$got" >new || exit 9
    mv new outputs.json || exit 9
}
"""


@dataclass(frozen=True)
class Op:
    """`lines`: how many events an attempt writes that comes to its end. `ends`: the reasons of attempts that nothing
    disturbs, None for COMPLETED. `share`: how often it is asked for, beside the others.
    """

    program: str
    lines: int
    ends: frozenset[str | None] = frozenset({None})
    share: int = 1
    more: Mapping[str, Any] = field(default_factory=dict)


OPS: Mapping[str, Op] = {
    "quick": Op("say 0; answer", 1, share=4),
    "steady": Op("count 15 0.2; answer", 15, share=4),
    "talkative": Op("count 300; answer", 300, share=2),
    "stubborn": Op("trap '' TERM; count 20 0.2; answer", 20, share=2, more={"execution": {"cancel_grace_s": 0.5}}),
    "failing": Op("say 0; exit 3", 1, frozenset({"op_error"}), more={"retry_policy": {"max_attempts": 2}}),
    "flaky": Op(
        "say 0; [ $((GYOZA_ATTEMPT % 2)) = 0 ] || exit 4; answer",
        1,
        frozenset({None, "op_error"}),
        share=2,
        more={"retry_policy": {"max_attempts": 3, "backoff_s": 0.3}},
    ),
    "overlong": Op("count 3; sleep 600", 3, frozenset({"run_timeout"}), more={"timeouts": {"run_s": 1.5}}),
    "resigned": Op(
        """say 0; echo '{"error_message": "no use", "retryable": false}' >error.json; exit 5""",
        1,
        frozenset({"op_error"}),
        more={"retry_policy": {"max_attempts": 4}},
    ),
}


def deploy(client: GyozaClient) -> None:
    """One bundle for all: what differs is a variable."""
    stored = client.upload_file(io.BytesIO(ARCHIVE), name="bundle.tar.gz")
    digest = f"sha256:{sha256(ARCHIVE).hexdigest()}"
    bundle = {"uri": stored["uri"], "digest": digest, "size": len(ARCHIVE), "entry": list(ENTRY)}
    for name, op in OPS.items():
        execution = {"env": {"PROGRAM": SPEAKS + op.program}, **op.more.get("execution", {})}
        said = {"input_specs": {"n": {"type": "int"}}, "constraints": {"cpu": 0.1, "ram_mb": 64}}
        client.upsert_definition({"id": name, "bundle": bundle, **said, **op.more, "execution": execution})
