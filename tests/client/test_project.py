from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from gyoza.client.project import definition_of, read_project, running_python
from gyoza.models.bundle import Bundle
from gyoza.models.errors import ProjectError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def said(folder: Path, text: str) -> Path:
    (folder / "gyoza.yml").write_text(dedent(text))
    return folder


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(ProjectError) as caught:
        read_project(said(folder, text))
    return caught.value.detail.removeprefix(str(folder / "gyoza.yml"))


WHOLE = """
    name: sharpen
    version: 1.10
    description: Sharpens
    command: [node, main.js, --quiet]
    python: 3.10
    requirements: [numpy==2.3.5]
    image: acme/sharpen:2
    base_image: debian:bookworm
    inputs:
      image: file
      by: {type: float, default: 0.5}
      note: {type: string, required: false}
    outputs:
      image: file
      note: {type: string, required: false}
    constraints: {cpu: 0.5, ram_mb: 512, vram_mb: 0}
    retry_policy: {max_attempts: 3, backoff_s: 1.5, jitter: 0.1, retry_on: [op_error], fail_on: [worker_lost]}
    delete_after_s: 3600
    timeouts: {queue_s: 3600, start_s: 2.5, run_s: 60}
    env: {MODE: fast, LEVEL: 3, ON: yes}
    secrets: [api-token]
    network: false
    cancel_grace_s: 2.5
    on_server_lost: stop
    server_lost_s: 600
    user: 1000:1000
    tags: [image, "2"]
    event_delivery: {topic: done, attributes: {team: a, level: 3}}
"""


def test_everything_that_the_file_can_say_ends_in_the_definition(folder: Path) -> None:
    bundle = Bundle("gyoza://files/1", "sha256:ab", 3, ("node", "main.js", "--quiet"))
    definition = definition_of(read_project(said(folder, WHOLE)), bundle)
    assert definition == {
        "id": "sharpen",
        "version": "1.10",
        "description": "Sharpens",
        "image": "acme/sharpen:2",
        "input_specs": {
            "image": {"type": "file", "required": True, "default": None},
            "by": {"type": "float", "required": False, "default": 0.5},
            "note": {"type": "string", "required": False, "default": None},
        },
        "output_specs": {
            "image": {"type": "file", "required": True, "default": None},
            "note": {"type": "string", "required": False, "default": None},
        },
        "constraints": {"cpu": 0.5, "ram_mb": 512, "vram_mb": 0},
        "retry_policy": {
            "max_attempts": 3,
            "backoff_s": 1.5,
            "backoff_factor": 2,
            "max_backoff_s": None,
            "jitter": 0.1,
            "retry_on": ["op_error"],
            "fail_on": ["worker_lost"],
        },
        "timeouts": {"queue_s": 3600, "start_s": 2.5, "run_s": 60},
        "execution": {
            "env": {"MODE": "fast", "LEVEL": "3", "ON": "yes"},
            "secrets": ["api-token"],
            "network": False,
            "cancel_grace_s": 2.5,
            "on_server_lost": "stop",
            "server_lost_s": 600,
            "user": "1000:1000",
        },
        "tags": ["image", "2"],
        "event_delivery": {"topic": "done", "attributes": {"team": "a", "level": 3}},
        "bundle": bundle.to_dict(),
        "concurrency": None,
        "delete_after_s": 3600,
    }


def test_a_text_is_what_is_written(folder: Path) -> None:
    project = read_project(said(folder, WHOLE))
    assert (project.version, project.python, project.argv) == ("1.10", "3.10", ("node", "main.js", "--quiet"))


def test_little_is_enough(folder: Path) -> None:
    project = read_project(said(folder, "name: tiny\nentry: tiny:main\nversion:\n"))
    assert (project.version, project.python, project.requirements) == (None, running_python(), ())
    assert project.argv == ("python", "-m", "gyoza.op", "tiny:main")


def test_a_command_needs_no_python(folder: Path) -> None:
    assert read_project(said(folder, "name: tiny\ncommand: [sh, run.sh]\n")).python is None


def test_specs_and_description_of_a_python_op_are_its_signature_s(folder: Path) -> None:
    (folder / "tiny.py").write_text('import torchh\ndef main(x: int = 3) -> dict:\n    """Does little."""\n')
    definition = definition_of(read_project(said(folder, "name: tiny\nentry: tiny:main")), None)
    assert definition["description"] == "Does little."
    assert definition["input_specs"] == {"x": {"type": "int", "required": False, "default": 3}}
    assert {path.name for path in folder.iterdir()} == {"tiny.py", "gyoza.yml"}


def test_requirements_may_stand_in_a_file(folder: Path) -> None:
    (folder / "requirements.txt").write_text("# why\nnumpy==2.3.5\n\n  pillow>=12  \n")
    project = read_project(said(folder, "name: tiny\nentry: tiny:main\nrequirements: requirements.txt"))
    assert project.requirements == ["numpy==2.3.5", "pillow>=12"]


TINY = "name: tiny\nentry: tiny:main\n"
FAULTS: list[tuple[str, str]] = [
    (TINY + "tagz: [a]", ":3: 'tagz' is not a key here: did you mean 'tags'?"),
    (TINY + "constraints:\n  cpu: 1\n  ram: 5", ":5: 'constraints.ram' is not a key here: did you mean 'ram_mb'?"),
    (TINY + "constraints: {gb: 1}", ":3: 'constraints.gb' is not a key here: it may be cpu, ram_mb, vram_mb"),
    (TINY + "constraints: {ram_mb: lots}", ":3: 'constraints.ram_mb' must be a whole number, 0 or more, not 'lots'"),
    (TINY + "constraints: {ram_mb: true}", ":3: 'constraints.ram_mb' must be a whole number, 0 or more, not 'true'"),
    (TINY + "constraints: {ram_mb: 1.5}", ":3: 'constraints.ram_mb' must be a whole number, 0 or more, not '1.5'"),
    (TINY + "constraints: {cpu: -1}", ":3: 'constraints.cpu' must be a number, 0 or more, not '-1'"),
    (TINY + "constraints: {cpu: .inf}", ":3: 'constraints.cpu' must be a number, 0 or more, not '.inf'"),
    (TINY + "constraints: {cpu: 0.0001}", ":3: 'constraints.cpu': 0.0001 CPU has more than three decimals"),
    (
        TINY + "retry_policy: {max_attempts: 0}",
        "'retry_policy.max_attempts' must be a whole number, 1 or more, not '0'",
    ),
    (TINY + "timeouts: 30", ":3: 'timeouts' must be a mapping (key: value), not '30'"),
    (TINY + "tags: image", ":3: 'tags' must be a list, not 'image'"),
    (TINY + "tags: [[a]]", ":3: 'tags[0]' must be a text, not a list"),
    (TINY + "env: {A: }", ":3: 'env.A' must be a text, not nothing"),
    (TINY + "name: other", ":3: 'name' stands here twice"),
    (TINY + "python: 2.7", ":3: 'python' must be a version such as 3.11, not '2.7'"),
    (TINY + "event_delivery: {attributes: {}}", ":3: 'event_delivery' needs a topic"),
    (TINY + "requirements: nowhere.txt", ":3: 'requirements' is a list of packages or a file of them; "),
    (TINY + "requirements: [-r more.txt]", ":3: 'requirements' may name packages, not files or folders: '-r more.txt'"),
    (TINY + "inputs: {a: int}", ": 'inputs' and 'outputs' are for ops with a command"),
    (TINY + "command: [sh]", ": say how the op is started: either entry"),
    ("name: a\nentry: tiny.py", ":2: 'entry' must be module:function, not 'tiny.py'"),
    ("name: a b\nentry: tiny:main", ":1: 'name' must be letters, digits"),
    ("name: a", ": say how the op is started: either entry"),
    ("entry: a:b", ": 'name' is missing"),
    ("name: a\ncommand: [sh]\ninputs: {a: integer}", ":3: 'inputs.a' must be one of string, int, "),
    ("name: a\ncommand: [sh]\ninputs: {a: strin}", "not 'strin': did you mean 'string'?"),
    ("name: a\ncommand: [sh]\ninputs: {a: {required: no}}", ":3: 'inputs.a' needs a type, one of string"),
    (
        "name: a\ncommand: [sh]\ninputs: {a: {type: any, default: 2024-01-01}}",
        ":3: 'inputs.a.default' must be what JSON",
    ),
    ("name: a\ncommand: [sh]\ninputs: {a: {type: any, default: !foo 1}}", ":3: this YAML cannot be read: "),
    ("name: [a", ":1: this is not YAML: "),
    ("a: b: c", ":1: this is not YAML: mapping values are not allowed here"),
    ("- a", ":1: this file must be a mapping (key: value), not a list"),
    ("", ":1: this file is empty"),
    ("name: a\0", ":1: this is not YAML: "),
]


@pytest.mark.parametrize(("text", "sentence"), FAULTS, ids=[sentence for _, sentence in FAULTS])
def test_a_fault_is_named_with_its_line_and_key(folder: Path, text: str, sentence: str) -> None:
    refused = refusal(folder, text)
    assert sentence in refused and "\n" not in refused


def test_a_folder_without_the_file_is_no_project(folder: Path) -> None:
    with pytest.raises(ProjectError, match=r"There is no gyoza\.yml in "):
        read_project(folder)


@pytest.mark.parametrize(
    ("source", "text", "sentence"),
    [
        ("", TINY, "entry 'tiny:main': tiny.py has no plain function 'main' at its top level"),
        ("def main(x: int = 'a'): ...", TINY, "the default of 'x' must be of type int, not string"),
        (
            "",
            "name: a\ncommand: [sh]\ninputs: {a: {type: int, default: 1.0}}",
            "the default of 'a' must be of type int",
        ),
    ],
)
def test_what_cannot_be_deployed_is_said_before(folder: Path, source: str, text: str, sentence: str) -> None:
    (folder / "tiny.py").write_text(source)
    project: Any = read_project(said(folder, text))
    with pytest.raises(ProjectError) as caught:
        definition_of(project, None)
    assert sentence in caught.value.detail
