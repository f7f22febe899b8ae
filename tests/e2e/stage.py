"""Gyoza as its users meet it: commands as real processes, on a free port, over a data folder of their own."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil
import yaml

from gyoza.cli.op import deploy_folder
from gyoza.client import GyozaClient
from gyoza.models.lifecycle import OpRunState

Found = TypeVar("Found")

PATIENCE_S = 40.0
"""For what has to happen sooner or later, on a machine that may have a lot else to do."""
CALM = {"GYOZA_HEARTBEAT_S": "0.5", "GYOZA_LEASE_S": "15"}
"""No worker is taken for lost only because this machine is busy."""
QUICKLY = {"GYOZA_HEARTBEAT_S": "0.5", "GYOZA_LEASE_S": "3"}
"""A lost worker is noticed soon."""


def until(look: Callable[[], Found], what: str, within_s: float = PATIENCE_S) -> Found:
    """What `look` finds, once it finds something."""
    deadline = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.02)
    return found


class Command:
    """One `gyoza ...` process; what it prints, on both channels, is in `output`."""

    def __init__(self, arguments: Sequence[str], environ: Mapping[str, str], output: Path, python: Sequence[str]):
        self.words = " ".join(["gyoza", *arguments])
        self.output = output
        with output.open("wb") as file:
            self._process = subprocess.Popen(
                [*python, *arguments],
                env=dict(environ),
                cwd=output.parent,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._process.pid

    @property
    def said(self) -> str:
        return self.output.read_text()

    @property
    def code(self) -> int | None:
        return self._process.poll()

    def says(self, text: str, within_s: float = PATIENCE_S) -> str:
        """Wait for these words; all that was said."""

        def look() -> bool:
            assert text in self.said or self.code is None, f"{self.words} ended with {self.code}:\n{self.said}"
            return text in self.said

        until(look, f"{self.words} says '{text}'", within_s)
        return self.said

    def ends(self, within_s: float = PATIENCE_S) -> int:
        """Wait for its end; its exit code."""
        try:
            return self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.words} has not ended within {within_s:g} s:\n{self.said}") from None

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def freeze(self) -> None:
        self.send(signal.SIGSTOP)

    def wake(self) -> None:
        self.send(signal.SIGCONT)

    def kill(self) -> None:
        """kill -9, of this process alone."""
        self._process.kill()
        self._process.wait()

    def stop(self, number: int = signal.SIGTERM, within_s: float = 5.0) -> int:
        self.send(number)
        return self.ends(within_s)

    def end(self) -> bool:
        """Whatever state it is in, also stopped by SIGSTOP; whether it ended without force."""
        if self.code is None:
            self.wake()
            try:
                self.stop(within_s=10)
            except AssertionError:
                self.kill()
                return False
        return True

    def refuses(self, *words: str, code: int = 1, after: str | None = None, within_s: float = PATIENCE_S) -> str:
        """It ends with `code` and one line of at most 400 characters that holds all these words; the line.

        `after` is what it said before that, if anything.
        """
        assert self.ends(within_s) == code, self.said
        *before, line = self.said.strip().splitlines()
        assert before == ([] if after is None else [after]), self.said
        assert len(line) <= 400 and "Traceback" not in line, self.said
        missing = [word for word in words if word not in line]
        assert not missing, f"{missing} not in: {line}"
        return line


class Stage:
    """A folder, a port, and the commands started on them. `end` ends them all, and finds what they left."""

    def __init__(self, folder: Path, **environ: str):
        self.folder = folder
        self.data = folder / "data"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environ = {**_inherited(), **environ, "GYOZA_RUNTIME": "process", "GYOZA_LOG_LEVEL": "warning"}
        self.environ |= {"GYOZA_PORT": str(self.port), "GYOZA_SERVER_URL": self.url, "GYOZA_DATA_DIR": str(self.data)}
        self.python: Sequence[str] = (sys.executable, "-m", "gyoza.cli")
        self._commands: list[Command] = []
        self._clients: dict[str, GyozaClient] = {}

    def run(self, *arguments: str, **environ: str) -> Command:
        """Start `gyoza ARGUMENTS...`, with more in its environment."""
        output = self.folder / f"{len(self._commands)}-{'-'.join(arguments[:2])}.log"
        command = Command(arguments, {**self.environ, **environ}, output, self.python)
        self._commands.append(command)
        return command

    def up(self, **environ: str) -> Command:
        command = self.run("up", **environ)
        command.says("Gyoza is up")
        return command

    def server(self, *options: str, **environ: str) -> Command:
        self.serving = self.run("server", "start", *options, **environ)
        self.serving.says("Gyoza serves")
        return self.serving

    def worker(self, name: str, *options: str, **environ: str) -> Command:
        command = self.run("worker", "start", "--name", name, *options, **environ)
        command.says(f"Worker {name} works for")
        return command

    @property
    def client(self) -> GyozaClient:
        return self.client_of(self.url)

    def client_of(self, url: str) -> GyozaClient:
        if url not in self._clients:
            self._clients[url] = GyozaClient(url, (self.data / "api-key").read_text().strip())
        return self._clients[url]

    def op(self, name: str, program: str, **more: Any) -> str:
        """Deploy a line of shell as an op; its name. `more` goes into gyoza.yml."""
        folder = self.folder / "ops" / name
        folder.mkdir(parents=True)
        said = {"name": name, "command": ["sh", "-c", 'eval "$PROGRAM"'], "env": {"PROGRAM": program}, **more}
        (folder / "gyoza.yml").write_text(yaml.safe_dump(said))
        deploy_folder(self.client, folder)
        return name

    def gated(self, name: str = "gated", **more: Any) -> "Gate":
        """Deploy an op that writes down its attempt, and then waits until its gate is opened."""
        gate = Gate(name, self.folder)
        self.op(name, gate.program, **{"constraints": {"cpu": 0.1, "ram_mb": 32}, **more})
        return gate

    def submit(self, name: str, times: int = 1, client: GyozaClient | None = None) -> list[str]:
        return [(client or self.client).create_run_from_definition(name, {})["id"] for _ in range(times)]

    def ended(self, run_id: str, within_s: float = PATIENCE_S) -> dict[str, Any]:
        """The run, once it has ended."""
        return self.reaches(run_id, *(state for state in OpRunState if state.is_terminal), within_s=within_s)

    def reaches(self, run_id: str, *states: str, within_s: float = PATIENCE_S) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            run = self.client.get_run(run_id)
            return run if run["state"] in states else None

        return until(look, f"run {run_id} reaches {' or '.join(states)}", within_s)

    def story(self, run_id: str) -> list[str]:
        """`["ASSIGNED 1", "STARTED 1", ...]`, after a look at what holds for every run's events."""
        events = self.client.get_events(run_id)["events"]
        assert [event["id"] for event in events] == list(range(len(events)))
        assert [event["attempt"] for event in events] == sorted(event["attempt"] for event in events)
        assert sum(event["type"] == "COMPLETED" for event in events) <= 1
        return [f"{event['type']} {event['attempt']}" for event in events]

    def postmaster(self) -> int:
        return int((self.data / "postgres" / "postmaster.pid").read_text().split("\n")[0])

    def end(self) -> list[str]:
        """End everything; the command lines of what did not end when it was told to, and of what was left then."""
        for client in self._clients.values():
            client.close()
        stuck = [f"{command.words}: {command.said}" for command in reversed(self._commands) if not command.end()]
        left = living_in(self.folder)
        for process in left:
            process.kill()
        return stuck + [shlex.join(process.info["cmdline"] or [process.info["name"]]) for process in left]


class Gate:
    """What `Stage.gated` deployed. Every attempt writes a line into `started`, and ends once `gate` is there."""

    def __init__(self, op: str, folder: Path):
        self.op = op
        self._started, self._gate = folder / f"{op}.started", folder / f"{op}.gate"
        self.program = (
            f'echo "$GYOZA_RUN_ID $GYOZA_ATTEMPT" >>{self._started}; '
            f"until [ -e {self._gate} ]; do sleep 0.05; done; "
            'echo "{\\"attempt\\": $GYOZA_ATTEMPT}" >"$GYOZA_IO_DIR/outputs.json"'
        )

    def started(self, *attempts: tuple[str, int]) -> None:
        """Wait until these attempts, `(run_id, number)`, have come to the gate."""
        until(lambda: set(attempts) <= set(self.arrivals()), f"attempts {attempts} start")

    def arrivals(self) -> list[tuple[str, int]]:
        lines = self._started.read_text().splitlines() if self._started.exists() else []
        return [(line.split()[0], int(line.split()[1])) for line in lines]

    def open(self) -> None:
        self._gate.touch()


def living_in(folder: Path) -> list[psutil.Process]:
    """Every process that works in this folder or was told of it: servers, workers, ops, PostgreSQL."""
    here = str(folder)
    found: list[psutil.Process] = []
    for process in psutil.process_iter(["name", "cmdline", "cwd", "environ", "status"]):
        told = (process.info["environ"] or {}).values()
        ours = (process.info["cwd"] or "").startswith(here) or any(value.startswith(here) for value in told)
        if ours and process.pid != os.getpid() and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _inherited() -> dict[str, str]:
    """Nothing that this shell says of Gyoza; and compiled code is kept, as it is for users."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GYOZA_") and name != "PYTHONDONTWRITEBYTECODE"
    }
