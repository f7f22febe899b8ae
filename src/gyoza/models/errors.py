"""Every refusal the product can utter, as one tree.

    GyozaError
      Refusal                        a request that is answered no; the server maps these to statuses in one table
        Unauthorized                 401
        Forbidden                    403
        NotFound                     404  RunNotFound DefinitionNotFound AttemptNotFound WorkerNotFound FileMissing
                                          KeyNotFound NoSuchPath
        MethodNotAllowed             405
        Conflict                     409  AttemptIsLeased LeaseLost StaleAttempt WorkerNameTaken Superseded
                                          NotRegistered DefinitionDisabled IdempotencyKeyReused WrongOffset
        NotAllowedNow                400  OpRunLockedException TransitionRefused InvalidQuery
        InputValidationError         400  inputs that do not satisfy an op's input_specs
        BadRequest                   400  what is no HTTP
        TooLarge                     413
        RangeNotSatisfiable          416
        Malformed                    422  wrong type, missing field, out of bounds
        InternalError                500
        Unavailable                  503  DatabaseUnavailable NotReady
        HttpError                    any other status that the web framework refuses with
      StartUpError                   a process cannot start; its text is what the operator reads
      ProjectError                   an op's folder cannot be read, packed or deployed as it stands
      AttemptError                   an attempt ends FAILED; `reason` is one of the closed list

A text says what happened, to which thing, and what to do now. `code` is stable; texts that the contract keeps are too.
Every code of a refusal has its entry in `server/catalogue.py`, from which its page in the docs is made.
"""

from collections.abc import Sequence
from dataclasses import dataclass


class GyozaError(Exception):
    code = "error"

    def __init__(self, detail: str):
        super().__init__(detail)
        self.detail = detail


class Refusal(GyozaError):
    code = "refused"


class Unauthorized(Refusal):
    code = "unauthorized"


class Forbidden(Refusal):
    code = "forbidden"


class NotFound(Refusal):
    code = "not_found"


class RunNotFound(NotFound):
    code = "run_not_found"

    def __init__(self, run_id: str):
        super().__init__(f"OpRun '{run_id}' not found")


class DefinitionNotFound(NotFound):
    code = "definition_not_found"

    def __init__(self, name: str, version: str | None = None):
        of = f" in version '{version}'" if version is not None else ""
        super().__init__(f"OpDefinition '{name}' not found{of}")


class AttemptNotFound(NotFound):
    code = "attempt_not_found"

    def __init__(self, run_id: str, attempt: int):
        super().__init__(f"OpRun '{run_id}' has no attempt {attempt}")


class WorkerNotFound(NotFound):
    code = "worker_not_found"

    def __init__(self, worker_id: str):
        super().__init__(f"Worker '{worker_id}' not found")


class FileMissing(NotFound):
    code = "file_not_found"

    def __init__(self, file_id: str):
        super().__init__(f"File '{file_id}' not found")


class KeyNotFound(NotFound):
    code = "key_not_found"

    def __init__(self, key_id: str):
        super().__init__(f"Key '{key_id}' not found: see gyoza keys ls for what there is")


class NoSuchPath(NotFound):
    code = "no_such_path"

    def __init__(self, path: str):
        super().__init__(f"There is nothing at {path}: see /docs for what there is")


class MethodNotAllowed(Refusal):
    code = "method_not_allowed"

    def __init__(self, method: str, path: str, allowed: Sequence[str]):
        super().__init__(f"{method} is not possible at {path}: possible are {', '.join(allowed)}")
        self.allowed = tuple(allowed)


class Conflict(Refusal):
    code = "conflict"


class AttemptIsLeased(Conflict):
    code = "attempt_is_leased"

    def __init__(self, run_id: str, attempt: int, worker_id: str):
        super().__init__(
            f"Attempt {attempt} of OpRun '{run_id}' is held by worker '{worker_id}': only that worker may report "
            "on it. Cancel the run to take it away"
        )


class LeaseLost(Conflict):
    code = "lease_lost"

    def __init__(self, run_id: str, attempt: int):
        super().__init__(f"The lease on attempt {attempt} of OpRun '{run_id}' is no longer current: stop this attempt")


class StaleAttempt(Conflict):
    code = "stale_attempt"

    def __init__(self, run_id: str, attempt: int, current: int):
        super().__init__(f"Attempt {attempt} of OpRun '{run_id}' is not the current one: that is attempt {current}")


class WorkerNameTaken(Conflict):
    code = "worker_name_taken"

    def __init__(self, worker_id: str):
        super().__init__(
            f"Worker name '{worker_id}' is in use on another host: give this worker another name (--name), "
            "or stop the other one and wait until its lease has run out"
        )


class Superseded(Conflict):
    code = "superseded"

    def __init__(self, worker_id: str):
        super().__init__(f"A newer process has taken over worker '{worker_id}' on this host: this one must exit")


class NotRegistered(Conflict):
    code = "not_registered"

    def __init__(self, worker_id: str):
        super().__init__(f"Worker '{worker_id}' is not registered, or was evicted: register it anew first")


class DefinitionDisabled(Conflict):
    code = "definition_disabled"

    def __init__(self, name: str):
        super().__init__(f"OpDefinition '{name}' is disabled and takes no new runs: enable it first")


class IdempotencyKeyReused(Conflict):
    code = "idempotency_key_reused"

    def __init__(self, key: str):
        super().__init__(
            f"The Idempotency-Key '{key}' was used for another request: send a new key, or exactly what was sent before"
        )


class WrongOffset(Conflict):
    """`offset`: where the log goes on."""

    code = "wrong_offset"

    def __init__(self, run_id: str, attempt: int, given: int, offset: int):
        super().__init__(
            f"The log of attempt {attempt} of OpRun '{run_id}' has {offset} bytes: "
            f"send what follows from offset {offset} on, not from {given}"
        )
        self.offset = offset


class NotAllowedNow(Refusal):
    code = "not_allowed_now"


class OpRunLockedException(NotAllowedNow):
    """The run is terminal: its state does not change any more."""

    code = "run_locked"


class TransitionRefused(NotAllowedNow):
    code = "transition_refused"


class InvalidQuery(NotAllowedNow):
    code = "invalid_query"


@dataclass(frozen=True)
class Fault:
    """One faulty place in a request: a sentence, a stable code, and a pointer.

    The pointer is RFC 6901's into the body, or `/path/<name>`, `/query/<name>`, `/header/<name>` for what is no body.
    """

    pointer: str
    detail: str
    code: str


class InputValidationError(Refusal):
    """Inputs that do not satisfy an op's `input_specs`; `errors` holds one sentence for every fault."""

    code = "invalid_inputs"

    def __init__(self, errors: Sequence[str], faults: Sequence[Fault] = ()):
        super().__init__("Invalid inputs: " + "; ".join(errors))
        self.errors = list(errors)
        self.faults = list(faults) or [Fault("/inputs", sentence, "wrong_value") for sentence in errors]


class Malformed(Refusal):
    code = "malformed"

    def __init__(self, errors: Sequence[Fault]):
        first = errors[0]
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        super().__init__(f"{first.pointer or 'body'}: {first.detail}{more}")
        self.errors = list(errors)


class BadRequest(Refusal):
    code = "bad_request"


class TooLarge(Refusal):
    code = "too_large"


class RangeNotSatisfiable(Refusal):
    code = "range_not_satisfiable"

    def __init__(self) -> None:
        super().__init__("The file has no bytes in the range that was asked for: Content-Range says how many it has")


class InternalError(Refusal):
    code = "internal_error"

    def __init__(self) -> None:
        super().__init__("The server failed on this request; its log says more")


class Unavailable(Refusal):
    code = "unavailable"


class DatabaseUnavailable(Unavailable):
    code = "database_unavailable"

    def __init__(self) -> None:
        super().__init__("The database cannot be reached just now: try again shortly")


class NotReady(Unavailable):
    code = "not_ready"

    def __init__(self, missing: Sequence[str]):
        super().__init__(f"Not ready: {' and '.join(missing)} cannot be reached")


class HttpError(Refusal):
    """`status` is the framework's own."""

    code = "http_error"

    def __init__(self, status: int, detail: str):
        super().__init__(detail)
        self.status = status


class StartUpError(GyozaError):
    """A server, worker or database cannot start here. The text says why and what to do now."""

    code = "start_up"


class ProjectError(GyozaError):
    """An op's folder cannot be read, packed or deployed as it stands. The text names the file and what to change."""

    code = "project"


class AttemptError(GyozaError):
    """An attempt ends FAILED, on the worker's side, for one of the reasons of `reasons.Reason`."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason
