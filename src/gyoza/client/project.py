"""An op's folder and its `gyoza.yml`, as a value; and the definition that is deployed from it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from gyoza.client import yaml_shape as shape
from gyoza.models.bundle import Bundle
from gyoza.models.definition import SECRET_NAME, TYPES, USER_NAME, Execution, InputSpecs, OpDefinition
from gyoza.models.errors import ProjectError
from gyoza.models.reasons import Reason
from gyoza.models.resources import cpu_from_wire

FILE = "gyoza.yml"
DESCRIBE_TIMEOUT_S = 30


@dataclass(frozen=True)
class Project:
    """What gyoza.yml says. Either `entry` (`module:function`, Python) or `command` is set; `python` is major.minor."""

    folder: Path
    name: str
    version: str | None = None
    entry: str | None = None
    command: Sequence[str] = ()
    python: str | None = None
    requirements: Sequence[str] = ()
    image: str | None = None
    base_image: str | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    outputs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    constraints: Mapping[str, Any] = field(default_factory=dict[str, Any])
    retry_policy: Mapping[str, Any] = field(default_factory=dict[str, Any])
    timeouts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    secrets: Sequence[str] = ()
    network: bool = True
    cancel_grace_s: float = 10
    on_server_lost: str = "finish"
    server_lost_s: float | None = None
    user: str | None = None
    tags: Sequence[str] = ()
    delete_after_s: float | None = None
    event_delivery: Mapping[str, Any] | None = None
    description: str | None = None

    @property
    def argv(self) -> tuple[str, ...]:
        """The command that starts the op, in its folder."""
        return ("python", "-m", "gyoza.op", self.entry) if self.entry else tuple(self.command)


def read_project(folder: Path) -> Project:
    """The project in `folder`; ProjectError names file, line and key of the first fault."""
    path = folder / FILE
    try:
        said = shape.read(path.read_text(encoding="utf-8"), _top(folder))
    except FileNotFoundError as error:
        raise ProjectError(f"There is no {FILE} in {folder}: an op's folder has one") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ProjectError(f"{path} cannot be read: {error}") from error
    except shape.Fault as fault:
        raise ProjectError(f"{path}:{fault.line}: {fault}") from fault
    if faulty := _disagreement(said):
        raise ProjectError(f"{path}: {faulty}")
    if "python" not in said and ("entry" in said or said.get("requirements")):
        said["python"] = running_python()
    return Project(folder=folder, **said)


def running_python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def definition_of(project: Project, bundle: Bundle | None) -> dict[str, Any]:
    """The serialised OpDefinition to deploy. The version stays null when gyoza.yml names none."""
    described = (
        _describe(project) if project.entry else {"input_specs": project.inputs, "output_specs": project.outputs}
    )
    definition = OpDefinition.from_dict(
        {
            "id": project.name,
            "version": project.version,
            "image": project.image,
            "constraints": project.constraints,
            "retry_policy": project.retry_policy,
            "event_delivery": project.event_delivery,
            "timeouts": project.timeouts,
            "execution": {each.name: getattr(project, each.name) for each in fields(Execution)},
            "tags": project.tags,
            "delete_after_s": project.delete_after_s,
            "bundle": bundle.to_dict() if bundle else None,
            **described,
            "description": project.description or described.get("description"),
        }
    )
    if faulty := _faulty_default(definition.input_specs):
        raise ProjectError(f"{project.folder}: the default of {faulty}")
    return definition.content()


def _top(folder: Path) -> shape.Reader:
    return shape.section(
        {
            "name": shape.pattern(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", "letters, digits, '.', '_' and '-', at most 100"),
            "version": shape.text,
            "description": shape.text,
            "entry": shape.pattern(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", "module:function"),
            "command": shape.list_of(shape.text),
            "python": shape.pattern(r"3\.\d+", "a version such as 3.11"),
            "requirements": _requirements(folder),
            "image": shape.text,
            "base_image": shape.text,
            "inputs": shape.mapping_of(_input_spec),
            "outputs": shape.mapping_of(_spec),
            "constraints": shape.section({"cpu": _cpu, "ram_mb": shape.whole(0), "vram_mb": shape.whole(0)}),
            "retry_policy": _RETRY_POLICY,
            "timeouts": shape.section({"queue_s": shape.number, "start_s": shape.number, "run_s": shape.number}),
            "env": shape.mapping_of(shape.text),
            "secrets": shape.list_of(shape.pattern(SECRET_NAME, "letters, digits, '_', '.' and '-', at most 100")),
            "network": shape.boolean,
            "cancel_grace_s": shape.number,
            "on_server_lost": shape.one_of("finish", "stop"),
            "server_lost_s": shape.number,
            "user": shape.pattern(USER_NAME, "a user, or user:group, by name or number"),
            "tags": shape.list_of(shape.text),
            "delete_after_s": shape.number,
            "event_delivery": _event_delivery,
        }
    )


_REASONS = shape.list_of(shape.one_of(*Reason))
_RETRY_POLICY = shape.section(
    {
        "max_attempts": shape.whole(1),
        "backoff_s": shape.number,
        "backoff_factor": shape.number,
        "max_backoff_s": shape.number,
        "jitter": shape.number,
        "retry_on": _REASONS,
        "fail_on": _REASONS,
    }
)


def _requirements(folder: Path) -> shape.Reader:
    """A list of pip requirements, or the name of a file of them."""

    def reader(node: yaml.Node, key: str) -> list[str]:
        if isinstance(node, yaml.SequenceNode):
            lines = shape.list_of(shape.text)(node, key)
        else:
            lines = _lines(node, key, folder / shape.text(node, key))
        for line in lines:
            # Those name files of this machine; the worker that installs the bundle does not have them.
            if line.startswith(("-r", "-c", "-e", "--requirement", "--constraint", "--editable", ".", "/")):
                raise shape.fault(node, f"'{key}' may name packages, not files or folders: '{line}'")
        return lines

    return reader


def _lines(node: yaml.Node, key: str, path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise shape.fault(node, f"'{key}' is a list of packages or a file of them; {path} cannot be read") from error
    return [line for line in map(str.strip, lines) if line and not line.startswith("#")]


def _spec(node: yaml.Node, key: str) -> dict[str, Any]:
    """`name: int`, or the long form `name: {type: int, required: false, default: 3}`."""
    kind = shape.one_of(*TYPES)
    if isinstance(node, yaml.ScalarNode):
        return {"type": kind(node, key)}
    spec = shape.section({"type": kind, "required": shape.boolean, "default": shape.anything})(node, key)
    if "type" not in spec:
        raise shape.fault(node, f"'{key}' needs a type, one of {', '.join(TYPES)}")
    return spec


def _input_spec(node: yaml.Node, key: str) -> dict[str, Any]:
    spec = _spec(node, key)
    return {"required": "default" not in spec, **spec}


def _cpu(node: yaml.Node, key: str) -> float:
    cpu = shape.number(node, key)
    try:
        cpu_from_wire(cpu)
    except ValueError as error:
        raise shape.fault(node, f"'{key}': {error}") from error
    return cpu


def _event_delivery(node: yaml.Node, key: str) -> dict[str, Any]:
    delivery = shape.section({"topic": shape.text, "attributes": shape.mapping_of(shape.anything)})(node, key)
    if "topic" not in delivery:
        raise shape.fault(node, f"'{key}' needs a topic")
    return delivery


def _disagreement(said: Mapping[str, Any]) -> str | None:
    """What no single line is to blame for."""
    if "name" not in said:
        return "'name' is missing: the op's unique name on the server"
    if ("entry" in said) == bool(said.get("command")):
        return "say how the op is started: either entry (module:function, Python) or command (a list), one of the two"
    if "entry" in said and ("inputs" in said or "outputs" in said):
        return "'inputs' and 'outputs' are for ops with a command; for this one the signature of the function says them"
    return None


def _describe(project: Project) -> dict[str, Any]:
    """Description and specs from the signature, read in a process of its own: see `gyoza.op.describe`."""
    command = [sys.executable, "-m", "gyoza.op", "--describe", str(project.entry)]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=project.folder, env=environment, capture_output=True, text=True, timeout=DESCRIBE_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise ProjectError(
            f"Reading the signature of {project.entry} takes longer than {error.timeout:.0f} s"
        ) from error
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or ["nothing was printed"]
    if done.returncode != 0:
        raise ProjectError(f"{project.folder / FILE}: entry '{project.entry}': {lines[-1]}")
    return json.loads(lines[-1])


def _faulty_default(specs: InputSpecs) -> str | None:
    faults = (spec.fault(name, spec.default) for name, spec in specs.items() if spec.default is not None)
    return next((fault for fault in faults if fault), None)
