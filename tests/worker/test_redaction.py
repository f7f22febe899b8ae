"""Secret values taken out of a stream: in every form, over every cut, and nothing else."""

import base64
import json
import re
import subprocess
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gyoza.worker.redaction import LEAST_BYTES, Redactor

TOKEN = b's3cr3t/T0ken+with "quotes" & \xc3\xbcmlauts'
LONG = b"gh_" + b"0123456789abcdefghijklmnopqrstuvwxyz" * 4  # in base64 it repeats itself
KEY = b"-----BEGIN KEY-----\nMIIBOgIBAAJBAKj34GkxFhD9\nzVRZ\n0uzFxk8xKsfV9aE1\n-----END KEY-----\n"
ALPHABET = st.sampled_from([b"a", b"b", b"ab", b"aab", b"-", b"\n", b"\xff"])


def redacted(data: bytes, *values: bytes, size: int | None = None) -> bytes:
    """Fed in pieces of `size`."""
    redactor = Redactor(values)
    pieces = [data[at : at + size] for at in range(0, len(data), size)] if size else [data]
    return b"".join(map(redactor.feed, pieces)) + redactor.flush()


FORMS = {
    "plain": TOKEN,
    "base64": base64.b64encode(TOKEN),
    "base64 for URLs": base64.urlsafe_b64encode(TOKEN),
    "hex": TOKEN.hex().encode(),
    "hex in capitals": TOKEN.hex().upper().encode(),
    "URL": quote(TOKEN).encode(),
    "URL, slashes too": quote(TOKEN, safe="").encode(),
    "URL in small letters": re.sub("%..", lambda code: code[0].lower(), quote(TOKEN)).encode(),
    "form": quote_plus(TOKEN).encode(),
    "JSON": json.dumps(TOKEN.decode()).encode(),
    "JSON with its letters": json.dumps(TOKEN.decode(), ensure_ascii=False).encode(),
    "JSON with slashes escaped": json.dumps(TOKEN.decode()).replace("/", "\\/").encode(),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("size", [None, 1, 7])
def test_a_value_is_found_in_every_usual_form(form: bytes, size: int | None) -> None:
    out = redacted(b"it is <" + form + b">, yes", TOKEN, size=size)
    assert out.replace(b'"', b"").replace(b"=", b"") == b"it is <***>, yes"


@pytest.mark.parametrize("before", [b"", b"u", b"u:", b"us:", b"user:"])
@pytest.mark.parametrize("after", [b"", b"\n", b"@h", b"@host"])
def test_in_base64_a_value_is_found_wherever_it_begins(before: bytes, after: bytes) -> None:
    text = base64.b64encode(before + LONG + after)
    out = redacted(text, LONG, size=5)
    assert b"***" in out and len(out) <= len(base64.b64encode(before + b"***" + after)) + 4


@pytest.mark.parametrize("tool", [["base64"], ["base64", "-w64"], ["base64", "-w0"]])
def test_what_the_base64_tool_prints_in_lines_is_found(tool: list[str]) -> None:
    for value in (LONG, LONG + b"\n"):
        printed = subprocess.run(tool, input=value, capture_output=True, check=True).stdout
        left = redacted(printed, LONG, size=3).translate(None, b"*=\n")
        assert len(left) < LEAST_BYTES  # a last line may be too short to be taken out


def test_each_line_of_a_value_is_found_alone() -> None:
    out = redacted(b"first MIIBOgIBAAJBAKj34GkxFhD9, then 0uzFxk8xKsfV9aE1; zVRZ is too short\n", KEY, size=4)
    assert out == b"first ***, then ***; zVRZ is too short\n"
    assert redacted(b"\n" + KEY + b"\n", KEY) == b"\n***\n\n"


def test_a_value_that_is_too_short_is_left_alone() -> None:
    short = b"x" * (LEAST_BYTES - 1)
    assert redacted(short + short.hex().encode(), short) == short + short.hex().encode()
    assert redacted(short + b"x", short + b"x") == b"***"
    assert redacted(b"anything", b"", b"  \n") == b"anything"


def test_what_overlaps_is_taken_out_to_the_last_byte() -> None:
    for size in (None, 1, 4):
        assert redacted(b"<abcdefghijkl>", b"abcdefgh", b"efghijkl", size=size) == b"<***>"
        assert redacted(b"<abcdefgh><ijkl>", b"abcdefgh", b"efghijkl", size=size) == b"<***><ijkl>"
        assert redacted(b"<abcdefghij><kl>", b"abcdefgh", b"efghijkl", size=size) == b"<***ij><kl>"
        assert redacted(b"<aaaaaaaaaaaaaaa>", b"aaaaaa", size=size) == b"<***>"
        assert redacted(b"<abcdefabcdef>", b"abcdef", size=size) == b"<******>"


def test_what_cannot_begin_a_value_goes_out_at_once() -> None:
    redactor = Redactor([LONG])
    assert redactor.feed(b"a line\nand more\n") == b"a line\nand more\n"
    assert redactor.feed(b"then gh_0123") == b"then "
    assert redactor.feed(b"x") == b"gh_0123x"


def test_no_more_is_held_back_than_a_value_has() -> None:
    redactor = Redactor([LONG])
    data = LONG[:-1] * 50
    held = 0
    for at in range(len(data)):
        held += 1 - len(redactor.feed(data[at : at + 1]))
        assert held < 2 * len(LONG)  # hex is the longest form
    assert held and redactor.flush() == data[-held:]


@given(st.lists(ALPHABET, min_size=6).map(b"".join), st.lists(ALPHABET).map(b"".join), st.integers(1, 9), st.data())
def test_it_does_not_matter_how_the_stream_is_cut(value: bytes, noise: bytes, size: int, data: st.DataObject) -> None:
    other = data.draw(st.lists(ALPHABET, min_size=6).map(b"".join))
    text = noise + value + other[:3] + value[3:] + noise + other
    whole = redacted(text, value, other)
    assert redacted(text, value, other, size=size) == whole
    for each in (value.strip(), other.strip()):
        assert len(each) < LEAST_BYTES or each not in whole


def test_a_whole_text_keeps_what_is_no_secret() -> None:
    redactor = Redactor([TOKEN])
    assert redactor.feed(TOKEN[:5]) == b""
    assert redactor.whole(f"ü {TOKEN.decode()} \ud800") == "ü *** \ufffd\ufffd\ufffd"
    assert redactor.whole("ü \ud800") == "ü \ud800"
    assert redactor.flush() == TOKEN[:5]
