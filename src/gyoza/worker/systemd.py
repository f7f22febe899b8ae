"""What a service manager is told of this process; nothing where it did not ask.

https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
"""

import asyncio
import os
import socket
from contextlib import suppress

from gyoza.worker.pulse import Pulse


def notify(*said: str) -> None:
    """`READY=1`, `STATUS=...`, each one assignment. A manager that does not listen costs nothing."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.setblocking(False)
        line.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        line.send("\n".join(said).encode())


def watchdog_s() -> float | None:
    """How often this very process must say that it lives; None where nobody asks."""
    usec, pid = os.environ.get("WATCHDOG_USEC"), os.environ.get("WATCHDOG_PID")
    if not usec or not usec.isdecimal() or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 1e6


async def feed_watchdog(pulse: Pulse) -> None:
    """For as long as no loop is stuck: then the silence has this process ended and started anew."""
    within_s = watchdog_s()
    while within_s is not None:
        if not pulse.stuck():
            notify("WATCHDOG=1")
        await asyncio.sleep(within_s / 3)
