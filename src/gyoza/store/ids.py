"""UUIDv7 (RFC 9562): ids that sort by the time of their making, so that what is new lies together."""

import secrets
from datetime import UTC, datetime, timedelta
from uuid import UUID

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def new_id(now: datetime) -> str:
    milliseconds = (now - _EPOCH) // timedelta(milliseconds=1)
    bits = (milliseconds << 80) | secrets.randbits(80)
    bits = (bits & ~(0xF << 76)) | (0x7 << 76)
    bits = (bits & ~(0x3 << 62)) | (0x2 << 62)
    return str(UUID(int=bits))
