"""A server of bare bytes: it says what a test wants said, and breaks off where it wants that."""

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def serving(answers: Sequence[bytes], read: Callable[[str], str] | None = None) -> Iterator[tuple[str, list[str]]]:
    """These answers, one a connection; its URL, and what it was asked for: by `read` of a request, or its target."""
    asked: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for each in answers:
                connection, _ = listening.accept()
                with connection:
                    request = connection.recv(65536).decode()
                    asked.append(read(request) if read else request.split("\r\n")[0].split()[1])
                    connection.sendall(each)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", asked
        thread.join()
