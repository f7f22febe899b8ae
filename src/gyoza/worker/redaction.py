"""Secret values taken out of what an op says, before it leaves this machine."""

import base64
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

LEAST_BYTES = 6
"""A shorter value stands in too many words to be taken out of them; the lines of a value count each for itself."""
LINE_WIDTHS = (64, 76)
"""Where the usual tools break base64."""
MASK = b"***"
_BEGINNING = 16

Span = tuple[int, int]


class Redactor:
    """Bytes go in by `feed`, in pieces of any size, and come out with `***` for every secret value.

    A value is found as it is, line by line, in base64 and hex, URL-encoded and escaped as in JSON. What overlaps is
    taken out as one, to the last byte. Only what may begin a value is held back: less than its longest form. The time
    is linear in the bytes and in the number of forms, about 20 for a token.
    """

    def __init__(self, values: Iterable[bytes]):
        self._forms = sorted({form for value in values for form in _forms(value)}, key=len)
        self._held = b""
        self._masked = 0
        """How many of the bytes held back belong to a value for which `***` went out already."""

    @property
    def held(self) -> int:
        """How many bytes are held back just now."""
        return len(self._held)

    def feed(self, data: bytes) -> bytes:
        """What of it, and of what was held back, may go out."""
        data = self._held + data
        return self._out(data, min((_begun(data, form) for form in self._forms), default=len(data)))

    def flush(self) -> bytes:
        """The rest, at the end of the stream."""
        return self._out(self._held, len(self._held))

    def whole(self, text: str) -> str:
        """A text of its own; the stream is not touched."""
        data = text.encode("utf-8", "surrogatepass")
        spans = self._spans(data)
        return _without(data, spans, len(data)).decode("utf-8", "replace") if spans else text

    def _out(self, data: bytes, until: int) -> bytes:
        spans = self._spans(data, self._masked)
        out = _without(data, spans, until)
        self._held = data[until:]
        self._masked = max((end - until for start, end in spans if start < until < end), default=0)
        return out

    def _spans(self, data: bytes, masked: int = 0) -> list[Span]:
        """Where values stand, in order and apart; the first `masked` bytes end one that began before."""
        found = [(-1, masked)] if masked else []
        for form in self._forms:
            found.extend(_places(data, form))
        return _joined(found)


def _begun(data: bytes, form: bytes) -> int:
    """From where on `data` may end in the beginning of `form`; its length where it does not.

    Of a long form only the first bytes are looked for: to hold too much back is harmless.
    """
    tail = max(len(data) - len(form) + 1, 0)
    found = data.find(form[:_BEGINNING], tail)
    if found >= 0 and len(form) > _BEGINNING:
        return found
    for start in range(max(tail, len(data) - _BEGINNING + 1), len(data)):
        if form.startswith(data[start:]):
            return start
    return len(data)


def _places(data: bytes, form: bytes) -> Iterator[Span]:
    """Where `form` stands. Of those that overlap one, the last: what lies between is covered by the two."""
    start = data.find(form)
    while start >= 0:
        end = start + len(form)
        yield start, end
        overlapping = data.rfind(form, start + 1, end + len(form) - 1)
        start = overlapping if overlapping >= 0 else data.find(form, end)


def _joined(spans: Iterable[Span]) -> list[Span]:
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start < joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def _without(data: bytes, spans: Iterable[Span], until: int) -> bytes:
    """`data` up to `until` with a mask for each span; one that began before it has its mask already."""
    out, at = bytearray(), 0
    for start, end in spans:
        if start >= until:
            break
        if start >= 0:
            out += data[at:start] + MASK
        at = min(end, until)
    return bytes(out + data[at:until])


def _forms(value: bytes) -> Iterator[bytes]:
    value = value.strip()
    for line in (value, *(line.strip() for line in value.splitlines())):
        if len(line) >= LEAST_BYTES:
            yield line
    if len(value) >= LEAST_BYTES:
        yield from (form for form in _encoded(value) if len(form) >= LEAST_BYTES)


def _encoded(value: bytes) -> Iterator[bytes]:
    for plain in (*_in_base64(value), *_broken_base64(value), *_broken_base64(value + b"\n")):
        yield plain
        yield plain.translate(bytes.maketrans(b"+/", b"-_"))
    yield from (value.hex().encode(), value.hex().upper().encode())
    for text in (quote(value, safe=""), quote(value), quote_plus(value)):
        yield text.encode()
        yield re.sub("%..", lambda code: code[0].lower(), text).encode()
    yield from _in_json(value)


def _in_base64(value: bytes) -> Iterator[bytes]:
    """For each place that a value may have among the groups of three bytes: what does not depend on its neighbours."""
    for before in range(3):
        text = base64.b64encode(bytes(before) + value)
        yield text[-(-before * 8 // 6) : (before + len(value)) * 8 // 6]


def _broken_base64(value: bytes) -> Iterator[bytes]:
    text = base64.b64encode(value).rstrip(b"=")
    for width in LINE_WIDTHS:
        for start in range(0, len(text), width):
            yield text[start : start + width]


def _in_json(value: bytes) -> Iterator[bytes]:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return
    for is_ascii in (True, False):
        escaped = json.dumps(text, ensure_ascii=is_ascii)[1:-1]
        yield escaped.encode()
        yield escaped.replace("/", "\\/").encode()
