"""`python -m tools.reference`: tells the story anew, then writes what has changed."""

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

import httpx

from gyoza.server.app import create_app, running
from gyoza.server.settings import Settings
from gyoza.store.embedded import embedded_database
from gyoza.store.schema import migrate

from . import EXAMPLES, ROOT, stale, story, wanted


async def told() -> dict[str, Any]:
    """The examples, from a server on an embedded database of its own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        async with embedded_database(Path(folder) / "database") as url:
            await asyncio.to_thread(migrate, url)
            async with running(Settings(Path(folder) / "data"), url, asyncio.Event()) as context:
                transport = httpx.ASGITransport(create_app(context, "key"))
                headers = {"X-API-Key": "key"}
                async with httpx.AsyncClient(
                    transport=transport, base_url="http://gyoza.test", headers=headers, timeout=30
                ) as api:
                    return await story.record(api)


def write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        print(f"written {path.relative_to(ROOT)}")


write(EXAMPLES, json.dumps(asyncio.run(told()), indent=1) + "\n")
for page, text in wanted().items():
    write(page, text)
for page in stale():
    page.unlink()
    print(f"removed {page.relative_to(ROOT)}")
