import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gyoza.client.project import definition_of, read_project

from .conftest import EXAMPLES, Unpacked, error, events, outputs, unpack

IMAGE = EXAMPLES / "thumbnails" / "landscape.jpg"

LOOK = """
import json, sys
from PIL import Image
seen = {}
for path in sys.argv[1:]:
    with Image.open(path) as image:
        image.load()
        seen[path] = [image.format, *image.size, len(image.getcolors(image.width * image.height))]
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def thumbnails(tmp_path_factory: pytest.TempPathFactory) -> Unpacked:
    return unpack("thumbnails", tmp_path_factory.mktemp("thumbnails"))


def looked_at(op: Unpacked, folder: Path, *paths: str) -> Any:
    command = [str(op.folder / "env" / "bin" / "python"), "-c", LOOK, *paths]
    return json.loads(subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout)


def test_thumbnails_of_a_real_image_are_images_of_the_asked_sizes(thumbnails: Unpacked, io_folder: Path) -> None:
    ended = thumbnails.run(io_folder, {"image": str(IMAGE)})
    assert ended.returncode == 0, ended.stderr
    out = outputs(io_folder)
    stats = out.pop("stats")
    seen = looked_at(thumbnails, io_folder, *out.values())
    assert {name: seen[path][:3] for name, path in out.items()} == {
        "small": ["JPEG", 64, 40],
        "medium": ["JPEG", 128, 80],
        "large": ["JPEG", 256, 160],
        "contact_sheet": ["PNG", 512, 224],
    }
    assert all(colours > 500 for _, _, _, colours in seen.values()), "pictures, not blank sheets"
    assert (stats["width"], stats["height"], len(stats["palette"])) == (1600, 1000, 5)
    assert stats["channels"]["red"]["min"] == 0 and stats["channels"]["red"]["max"] == 255
    assert [each["msg"] for each in events(io_folder) if each["type"] == "PROGRESS"] == [20, 35, 50, 65, 80]


def test_other_sizes_may_be_asked_for(thumbnails: Unpacked, io_folder: Path) -> None:
    assert thumbnails.run(io_folder, {"image": str(IMAGE), "sizes": [300, 10, 20]}).returncode == 0
    out = outputs(io_folder)
    assert looked_at(thumbnails, io_folder, out["small"], out["large"]).keys() == {out["small"], out["large"]}
    assert looked_at(thumbnails, io_folder, out["large"])[out["large"]][1] == 300


@pytest.mark.parametrize("sizes", [[], [1, 2], [0, 1, 2], [1, 2, True], [1, 2, "3"], [1, 2, 5000]])
def test_sizes_that_make_no_sense_are_refused(thumbnails: Unpacked, io_folder: Path, sizes: list[Any]) -> None:
    assert thumbnails.run(io_folder, {"image": str(IMAGE), "sizes": sizes}).returncode == 1
    assert error(io_folder)["error_message"].startswith("sizes must be three whole numbers from 1 to 4096")


def test_a_file_that_is_no_image_is_refused(thumbnails: Unpacked, io_folder: Path) -> None:
    assert thumbnails.run(io_folder, {"image": __file__}).returncode == 1
    said = {"error_message": "test_thumbnails.py is not an image that Pillow can read", "retryable": False}
    assert error(io_folder) == said


def test_its_definition_is_read_without_pillow() -> None:
    definition = definition_of(read_project(EXAMPLES / "thumbnails"), None)
    assert definition["input_specs"]["image"] == {"type": "file", "required": True, "default": None}
    assert definition["input_specs"]["sizes"] == {"type": "list", "required": False, "default": [64, 128, 256]}
    files = ("small", "medium", "large", "contact_sheet")
    assert {name: spec["type"] for name, spec in definition["output_specs"].items()} == {
        **dict.fromkeys(files, "file"),
        "stats": "dict",
    }
