"""`GET /health` of a worker: answered by a thread of its own, so that a stuck event loop cannot hide that it is."""

import json
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from gyoza.models.errors import StartUpError
from gyoza.worker.pulse import Pulse

HOST = "127.0.0.1"

Said = Callable[[], dict[str, Any]]


@contextmanager
def answering(port: int | None, pulse: Pulse, said: Said) -> Generator[None]:
    """On loopback, while this is entered; no port, no answers. `said`: what a good answer tells besides."""
    if port is None:
        yield
        return
    server = _listen(port, pulse, said)
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def _listen(port: int, pulse: Pulse, said: Said) -> ThreadingHTTPServer:
    class Answers(BaseHTTPRequestHandler):
        timeout = 5

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/health":
                self._answer(404, {"status": "not_found", "detail": "There is only /health here"})
            elif stuck := pulse.stuck():
                self._answer(503, {"status": "stuck", "detail": "; ".join(stuck), **said()})
            else:
                self._answer(200, {"status": "ok", **said()})

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Monitors ask every few seconds: not worth a line each."""

    try:
        return ThreadingHTTPServer((HOST, port), Answers)
    except OSError as error:
        raise StartUpError(
            f"Cannot answer on {HOST} port {port}: {error.strerror or error}. Choose another with --health-port"
        ) from error
