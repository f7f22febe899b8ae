"""Every code that a server answers with, in words: the pages of the docs are made from these two tables.

A new refusal is a class in `models/errors.py` and an entry here, then `make docs`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gyoza.models import errors
from gyoza.models.errors import Fault, Refusal

_RUN = "019a3c5e-7d20-7b11-9c43-2f0a5b6c7d8e"
_FILE = "8a1f6f0e-43c6-4d0c-9a53-0c6b1f2d3e4f"


@dataclass(frozen=True)
class Entry:
    """A code as its page tells of it; the code itself, its status and its text are those of `example`."""

    example: Refusal
    means: str
    now: str


ENTRIES: tuple[Entry, ...] = (
    Entry(
        errors.BadRequest("Invalid HTTP request received."),
        "What arrived is not HTTP, or it broke off, or a header in it cannot be understood.",
        "Send it again; if that does not help, look at what stands between the program and the server.",
    ),
    Entry(
        errors.InputValidationError(
            ["'x' must be of type int, not string"],
            [Fault("/inputs/x", "'x' must be of type int, not string", "wrong_type")],
        ),
        "The inputs do not fit the op's `input_specs`; `errors` names each one that does not.",
        "Correct them: `gyoza definitions show NAME` tells what the op takes.",
    ),
    Entry(
        errors.InvalidQuery("starting_after and ending_before cannot be used together: give one of them"),
        "Filters or cursors contradict each other, or name nothing that there is.",
        "The sentence says which one; a page's cursor is the id of a run that was listed.",
    ),
    Entry(
        errors.NotAllowedNow("Run is already in terminal state COMPLETED"),
        "The run is in a state that does not allow this.",
        "Look at the run's `state`; [the life of a run](../../concepts/lifecycle.md) shows what may follow.",
    ),
    Entry(
        errors.OpRunLockedException(
            "The run is FAILED and locked: PROGRESS is refused. To do the work again, retry the run"
        ),
        "The run is over, so its state does not change any more.",
        "Retry it (`gyoza runs retry`), or submit a new one; a run that is COMPLETED stays so.",
    ),
    Entry(
        errors.TransitionRefused(
            "COMPLETED is refused while the run is PENDING: allowed now CANCELLED, ERROR, INFO, STARTED"
        ),
        "This event cannot happen to a run in this state.",
        "The sentence lists what can; [the life of a run](../../concepts/lifecycle.md) shows all of it.",
    ),
    Entry(
        errors.Refusal("This request is refused"),
        "Refused for a reason that has no code of its own yet.",
        "The sentence says why.",
    ),
    Entry(
        errors.Unauthorized("The API key is missing: send it as header X-API-Key, or as Authorization: Bearer"),
        "The API key is missing, not known here, expired or revoked. Nothing of the request's body was read.",
        "Send it as `X-API-Key`, or as `Authorization: Bearer`. The server's own key is in its data folder.",
    ),
    Entry(
        errors.Forbidden(
            "The key 'ci' lacks the scope admin: it has submit. "
            "Ask an administrator for a key with that scope (gyoza keys create)"
        ),
        "The key is known, but lacks the scope that this call needs, or speaks for another worker.",
        "Use a key with that scope: [keys](../keys.md) has a table of calls and scopes.",
    ),
    Entry(
        errors.AttemptNotFound(_RUN, 3),
        "The run has no attempt of that number.",
        "Attempts count from 1; `GET /runs/{run_id}/attempts` lists them.",
    ),
    Entry(
        errors.DefinitionNotFound("thumbnails", "2"),
        "There is no definition of that name, or not in that version.",
        "`gyoza definitions ls` lists what is deployed.",
    ),
    Entry(
        errors.FileMissing(_FILE),
        "There is no such file, or its bytes are gone.",
        "Upload it again, and use the URI that the answer has.",
    ),
    Entry(
        errors.KeyNotFound(_FILE),
        "There is no such key.",
        "`gyoza keys ls` lists them; what is asked for is the key's id, not its text.",
    ),
    Entry(
        errors.NoSuchPath("/run"),
        "The API has no such path. A slash too many at its end makes another path of it, too.",
        "[The HTTP API](../http-api.md) lists all paths, and so does `/docs` on the server.",
    ),
    Entry(
        errors.NotFound("There is no such thing"),
        "What the path names is not there, and has no code of its own yet.",
        "The sentence says what was looked for.",
    ),
    Entry(
        errors.RunNotFound("0199"),
        "There is no run with this id.",
        "Ids are matched exactly; `gyoza runs ls` lists them. A run whose time was over may have been deleted.",
    ),
    Entry(
        errors.WorkerNotFound("gpu-7"),
        "There is no worker of that name.",
        "`gyoza workers ls` lists them; a worker that was removed comes back when it registers anew.",
    ),
    Entry(
        errors.MethodNotAllowed("DELETE", "/runs", ["GET", "HEAD", "POST"]),
        "The path is there, but has no such method.",
        "The header `Allow` names the methods that it has.",
    ),
    Entry(
        errors.AttemptIsLeased(_RUN, 1, "gpu-7"),
        "A worker holds the attempt: only it may start it, report its progress and end it.",
        "Cancel the run to take it away from the worker.",
    ),
    Entry(
        errors.Conflict("Another change was there first"),
        "The request contradicts what is there, and has no code of its own yet.",
        "The sentence says what is in the way.",
    ),
    Entry(
        errors.DefinitionDisabled("thumbnails"),
        "The definition takes no new runs for now; those that are there go on.",
        "Run another one, or have an administrator enable it.",
    ),
    Entry(
        errors.IdempotencyKeyReused("5f0c"),
        "Another request was made under this `Idempotency-Key`.",
        "Send exactly what was sent before, to get its answer; or send a new key, to ask for something new.",
    ),
    Entry(
        errors.LeaseLost(_RUN, 1),
        "A worker's lease on an attempt is no longer current: the attempt is over, or was taken back.",
        "For workers: stop that attempt, and drop the report.",
    ),
    Entry(
        errors.NotRegistered("gpu-7"),
        "The worker is not registered, or was given up because it was silent for too long.",
        "For workers: register anew, then claim.",
    ),
    Entry(
        errors.StaleAttempt(_RUN, 1, 2),
        "The event names an attempt that is not the current one.",
        "Drop it: what it tells of is history.",
    ),
    Entry(
        errors.Superseded("gpu-7"),
        "A newer process has taken over this worker's name on the same host.",
        "For workers: exit.",
    ),
    Entry(
        errors.WrongOffset(_RUN, 1, 2048, 1024),
        "These bytes would leave a gap in the log.",
        "Send what follows from the `offset` on that the answer has.",
    ),
    Entry(
        errors.WorkerNameTaken("gpu-7"),
        "A living worker on another host has this name.",
        "Give this one another name (`--name`), or stop the other and wait until its lease has run out.",
    ),
    Entry(
        errors.TooLarge("The body is larger than 16777216 bytes: send less, or files by POST /files"),
        "The body is larger than 16 MiB.",
        "Send large data as files. The connection may be used further.",
    ),
    Entry(
        errors.RangeNotSatisfiable(),
        "The header `Range` asks for bytes beyond the end of the file.",
        "The header `Content-Range` says how many bytes the file has.",
    ),
    Entry(
        errors.Malformed(
            [Fault("/image", "is required", "missing"), Fault("/priority", "must be at most 1000", "out_of_bounds")]
        ),
        "Something in the request has the wrong shape; `errors` names every place.",
        "Correct each place: see [places](../errors.md#places).",
    ),
    Entry(
        errors.InternalError(),
        "The server failed on this request. This is a fault of Gyoza, not of the request.",
        "Its log has a traceback: please report it. The request may have taken effect; look before you repeat it.",
    ),
    Entry(
        errors.DatabaseUnavailable(),
        "The database cannot be reached just now.",
        "Try again after the seconds that the header `Retry-After` names. If it lasts, look after the database.",
    ),
    Entry(
        errors.NotReady(["database"]),
        "`GET /health/ready` alone: the database or the file store cannot be reached.",
        "Send no work to this server before it is ready.",
    ),
    Entry(
        errors.Unavailable("This cannot be done just now: try again shortly"),
        "The server cannot do this just now, and there is no finer code yet.",
        "Try again after the seconds that the header `Retry-After` names.",
    ),
    Entry(
        errors.HttpError(421, "Misdirected Request"),
        "What the web framework refuses by itself, with whatever status it has for that.",
        "The sentence says what it is about.",
    ),
)
"""In the order of their statuses."""

FAULTS: Mapping[str, str] = {
    "missing": "it must be there, and is not",
    "unknown_member": "nothing of that name belongs there",
    "wrong_type": "a text where a number belongs, and the like",
    "wrong_value": "of the right type, but not one of those that are possible",
    "wrong_format": "a text that does not look as it must",
    "out_of_bounds": "a number that is too small or too large",
    "too_short": "a text or list that is too short",
    "too_long": "a text or list that is too long",
    "too_large": "inputs, outputs, msg or payload with more bytes than their bound",
    "too_deep": "nested deeper than 100",
    "not_json": "the body is no JSON",
    "not_utf8": "the body, path or query is no UTF-8",
    "duplicate_member": "an object names a member twice: readers would not agree on which one counts",
    "number_out_of_range": "NaN, an infinity, or beyond a double",
    "integer_out_of_range": "beyond 64 bits: send it as a text",
    "nul_character": "a text with a NUL character cannot be kept",
    "lone_surrogate": "a text with half of a surrogate pair cannot be kept",
    "invalid_msg": "what an event's msg says does not fit the event's type",
    "invalid_payload": "a member of an event's payload does not fit the event's type",
    "not_canonical": "a definition that has no canonical JSON",
    "definition_not_found": "an item of a batch names a definition, or a version of it, that is not there",
    "definition_disabled": "an item of a batch names a definition that takes no new runs",
    "unkeepable": "a value that cannot be kept",
}
"""Codes of single places, in `errors`."""
