"""Why an attempt ended other than well: a closed list, each entry with the budget it spends."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    OP_ERROR = "op_error"
    OOM_KILLED = "oom_killed"
    GPU_MEMORY_EXCEEDED = "gpu_memory_exceeded"
    RUN_TIMEOUT = "run_timeout"
    INVALID_OUTPUT = "invalid_output"
    IMAGE_NOT_FOUND = "image_not_found"
    BUNDLE_BROKEN = "bundle_broken"
    NOT_ALLOWED = "not_allowed"
    IMAGE_PULL_FAILED = "image_pull_failed"
    START_FAILED = "start_failed"
    START_TIMEOUT = "start_timeout"
    DISK_FULL = "disk_full"
    WORKER_LOST = "worker_lost"
    RELEASED = "released"
    DECLINED = "declined"
    DRAINED = "drained"
    PREEMPTED = "preempted"
    QUEUE_TIMEOUT = "queue_timeout"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    EXTERNAL = "external"


class Budget(StrEnum):
    USER = "user"
    INFRA = "infra"
    NONE = "none"


INFRA_LOSS_LIMIT = 5
"""A run that loses this many attempts to the infrastructure is stopped: it may be what kills the workers."""


@dataclass(frozen=True)
class Rule:
    """What a reason costs and whether it is tried again, on another worker first where `elsewhere`."""

    spends: Budget
    retried: bool
    elsewhere: bool = False


_user_retried = Rule(Budget.USER, retried=True)
_user_final = Rule(Budget.USER, retried=False)
_infra = Rule(Budget.INFRA, retried=True, elsewhere=True)
_free = Rule(Budget.NONE, retried=True, elsewhere=True)
_final = Rule(Budget.NONE, retried=False)

RULES: Mapping[Reason, Rule] = {
    Reason.OP_ERROR: _user_retried,
    Reason.OOM_KILLED: _user_retried,
    Reason.GPU_MEMORY_EXCEEDED: _user_retried,
    Reason.RUN_TIMEOUT: _user_retried,
    Reason.INVALID_OUTPUT: _user_final,
    Reason.IMAGE_NOT_FOUND: _user_final,
    Reason.BUNDLE_BROKEN: _user_final,
    Reason.NOT_ALLOWED: _user_final,
    Reason.IMAGE_PULL_FAILED: _infra,
    Reason.START_FAILED: _infra,
    Reason.START_TIMEOUT: _infra,
    Reason.DISK_FULL: _infra,
    Reason.WORKER_LOST: _infra,
    Reason.RELEASED: _free,
    Reason.DECLINED: _free,
    Reason.DRAINED: _free,
    Reason.PREEMPTED: _free,
    Reason.QUEUE_TIMEOUT: _final,
    Reason.EXPIRED: _final,
    Reason.CANCELLED: _final,
    Reason.EXTERNAL: _user_retried,
}

MEANINGS: Mapping[Reason, str] = {
    Reason.OP_ERROR: "the op exited with another code than 0, or wrote an error",
    Reason.OOM_KILLED: "it needed more memory than it declared",
    Reason.GPU_MEMORY_EXCEEDED: "it needed more GPU memory than it declared",
    Reason.RUN_TIMEOUT: "it ran longer than `timeouts.run_s`",
    Reason.INVALID_OUTPUT: "its outputs are no JSON object, or not what `output_specs` promise",
    Reason.IMAGE_NOT_FOUND: "there is no such image",
    Reason.BUNDLE_BROKEN: "the bundle cannot be unpacked, built or verified",
    Reason.NOT_ALLOWED: "the worker's owner does not allow what it asks for",
    Reason.IMAGE_PULL_FAILED: "the image exists but could not be fetched",
    Reason.START_FAILED: "the container or process could not be started",
    Reason.START_TIMEOUT: "it did not start within `timeouts.start_s`",
    Reason.DISK_FULL: "the worker's disk is full",
    Reason.WORKER_LOST: "the worker was not heard of any more",
    Reason.RELEASED: "the worker never confirmed that it had taken the attempt",
    Reason.DECLINED: "the worker could not take it after all",
    Reason.DRAINED: "the worker is being taken out of service",
    Reason.PREEMPTED: "it made room for something more urgent",
    Reason.QUEUE_TIMEOUT: "it waited longer than `timeouts.queue_s`",
    Reason.EXPIRED: "it was not wanted any more when its turn came",
    Reason.CANCELLED: "somebody cancelled it",
    Reason.EXTERNAL: "a program of your own reported a failure without a reason",
}
"""What happened, for people."""

SERVER_ALONE = frozenset({Reason.WORKER_LOST, Reason.RELEASED, Reason.QUEUE_TIMEOUT, Reason.EXPIRED, Reason.CANCELLED})
"""Reasons that only the server gives; a worker or a client may write the others."""
