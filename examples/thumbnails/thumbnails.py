"""Three thumbnails of an image, a contact sheet that shows them side by side, and statistics of its colours."""

from pathlib import Path
from typing import TypedDict

from PIL import Image, ImageDraw, ImageOps, ImageStat, UnidentifiedImageError

from gyoza.op import Failure, log, op, output_dir, progress

SIZES = [64, 128, 256]
LARGEST = 4096
MARGIN = 16
BACKGROUND = (24, 26, 38)


class Outputs(TypedDict):
    small: Path
    medium: Path
    large: Path
    contact_sheet: Path
    stats: dict


@op
def thumbnails(image: Path, sizes: list = SIZES) -> Outputs:
    """Three thumbnails, a contact sheet and the colours of an image."""
    if len(sizes) != 3 or not all(type(size) is int and 1 <= size <= LARGEST for size in sizes):
        raise Failure(f"sizes must be three whole numbers from 1 to {LARGEST}, not {sizes}")
    picture = opened(image)
    log(f"{picture.width} x {picture.height} pixels")
    progress(20)

    thumbs = []
    for done, size in enumerate(sorted(sizes), start=1):
        thumbs.append(ImageOps.contain(picture, (size, size), Image.Resampling.LANCZOS))
        progress(20 + 15 * done)

    stats = {"width": picture.width, "height": picture.height, **colours(picture)}
    progress(80)
    return {
        "small": saved(thumbs[0], "small.jpg"),
        "medium": saved(thumbs[1], "medium.jpg"),
        "large": saved(thumbs[2], "large.jpg"),
        "contact_sheet": saved(contact_sheet(thumbs, stats["palette"]), "contact_sheet.png"),
        "stats": stats,
    }


def opened(path: Path) -> Image.Image:
    """The image in RGB, turned the way its camera was held."""
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError:
        raise Failure(f"{path.name} is not an image that Pillow can read") from None


def saved(image: Image.Image, name: str) -> Path:
    path = output_dir() / name
    image.save(path, quality=88)
    return path


def colours(image: Image.Image) -> dict:
    """Mean, deviation and extremes of each channel, and the five colours that say most about the image."""
    stat = ImageStat.Stat(image)
    channels = {}
    for i, name in enumerate(("red", "green", "blue")):
        low, high = stat.extrema[i]
        channels[name] = {"mean": round(stat.mean[i], 2), "stddev": round(stat.stddev[i], 2), "min": low, "max": high}
    few = image.resize((64, 64)).quantize(5)
    flat = few.getpalette()
    palette = [tuple(flat[3 * i : 3 * i + 3]) for _, i in sorted(few.getcolors(), reverse=True)]
    return {"channels": channels, "palette": ["#{:02x}{:02x}{:02x}".format(*colour) for colour in palette]}


def contact_sheet(thumbs: list, palette: list) -> Image.Image:
    """The thumbnails on one ground line, above a strip of the palette."""
    width = sum(thumb.width for thumb in thumbs) + MARGIN * (len(thumbs) + 1)
    ground = MARGIN + max(thumb.height for thumb in thumbs)
    sheet = Image.new("RGB", (width, ground + 3 * MARGIN), BACKGROUND)
    left = MARGIN
    for thumb in thumbs:
        sheet.paste(thumb, (left, ground - thumb.height))
        left += thumb.width + MARGIN
    draw = ImageDraw.Draw(sheet)
    swatch = (width - 2 * MARGIN) / len(palette)
    for i, colour in enumerate(palette):
        x = MARGIN + i * swatch
        draw.rectangle([x, ground + MARGIN, x + swatch - 1, ground + 2 * MARGIN], fill=colour)
    return sheet
