"""What the program needs to start: its image, or its bundle, brought to this machine once."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from gyoza.client.errors import DownloadBroken, NotFound
from gyoza.models.bundle import Bundle
from gyoza.models.errors import AttemptError
from gyoza.worker.engines import Job
from gyoza.worker.patience import patiently
from gyoza.worker.work import Work

_fetching: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)


@asynccontextmanager
async def image(work: Work) -> AsyncGenerator[None]:
    assigned, room = work.assignment, work.assignment.constraints.counted
    work.job = Job(
        run_id=assigned.lease.run_id,
        attempt=assigned.lease.attempt,
        io_dir=work.io_dir,
        cpu_m=room.cpu_m,
        ram_mb=room.ram_mb,
        image=assigned.image,
        image_digest=assigned.image_digest,
        bundle=assigned.bundle,
        archive=await _archive(work, assigned.bundle) if assigned.bundle and work.begun is None else None,
        gpus=await work.place.gpus.uuids(assigned.gpu_ids) if work.begun is None else (),
        env=assigned.execution.env,
        network=assigned.execution.network,
        user=assigned.execution.user,
        secrets_dir=work.secrets_dir,
    )
    try:
        work.ready = work.begun.ready if work.begun else await work.place.engine.ready(work.job, partial(_say, work))
        yield
    finally:
        work.place.engine.release(work.job)


def _say(work: Work, text: str) -> None:
    work.telling.tell({"type": "INFO", "msg": text})


async def _archive(work: Work, bundle: Bundle) -> Path:
    """The bundle's archive, checked against its digest; fetched once, however many attempts want it."""
    sha256 = bundle.digest.removeprefix("sha256:")
    path = work.place.folder / "bundles" / f"{sha256}.tar.gz"
    async with _fetching[str(path)]:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            await _fetch(work, bundle, path, sha256)
    return path


async def _fetch(work: Work, bundle: Bundle, path: Path, sha256: str) -> None:
    try:
        await patiently(lambda: work.place.client.download_file(bundle.uri, path, sha256=sha256))
    except NotFound as error:
        raise AttemptError("bundle_broken", f"The server has no bundle '{bundle.uri}': deploy the op anew") from error
    except DownloadBroken as error:
        raise AttemptError("bundle_broken", f"The bundle is not the one that was deployed: {error.detail}") from error
