"""Makes the pictures of docs/display.md from the real demo: each state of the screen at four sizes.

    FLUORONAV_SCREENSHOTS=SCREENS python -m pytest tests/display/test_real_screens.py
    git show df998f9:docs/images/display-demo.png > BEFORE.png   # the first edition
    python docs/images/draw_display.py SCREENS BEFORE.png

The test takes the pictures (PNG) into the folder `SCREENS`. Look at each of them for what is cut off, lies over
something else, or says what is not so. This script makes small ones of them: single states, sheets of all states and
sizes, and the first edition of the screen beside the present one.
"""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from fluoronav.lab.screens import SIZES, STATES

HERE = Path(__file__).parent
GAP, LINE = 12, 26  # between pictures, and of a caption, px
# Pictures of one state: name of the file, and of the state.
SINGLE = {
    "display-demo": "tracking", "display-check": "check", "alarm-high": "alarm-high", "lost": "lost",
    "display-frozen": "frozen", "display-two-alarms": "two-alarms",
}  # fmt: skip
SINGLE_WIDTH, SHEET_WIDTH, QUALITY = 1280, 480, 78


def small(path: Path, width: int) -> Image.Image:
    picture = Image.open(path).convert("RGB")
    return picture.resize((width, round(width * picture.height / picture.width)), Image.Resampling.LANCZOS)


def sheet(cells: list[tuple[str, Image.Image]], columns: int) -> Image.Image:
    """Pictures with captions, in rows."""
    rows = [cells[k : k + columns] for k in range(0, len(cells), columns)]
    heights = [max(picture.height for _, picture in row) + LINE for row in rows]
    width = max(sum(picture.width + GAP for _, picture in row) for row in rows) - GAP
    out = Image.new("RGB", (width, sum(heights) + GAP * (len(rows) - 1)), "white")
    draw, font = ImageDraw.Draw(out), ImageFont.load_default(16)
    y = 0
    for row, height in zip(rows, heights, strict=True):
        x = 0
        for words, picture in row:
            draw.text((x, y + 3), words, "black", font)
            out.paste(picture, (x, y + LINE))
            x += picture.width + GAP
        y += height + GAP
    return out


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("screens", type=Path, metavar="SCREENS", help="folder of the test's pictures")
parser.add_argument("before", type=Path, metavar="BEFORE.png", help="the screen's first edition")
options = parser.parse_args()
for name, state in SINGLE.items():
    small(options.screens / f"{state}-1920x1080.png", SINGLE_WIDTH).save(
        HERE / f"{name}.webp", quality=QUALITY, method=6
    )
states = [(s.words, small(options.screens / f"{s.name}-1920x1080.png", SHEET_WIDTH)) for s in STATES]
sheet(states, 3).save(HERE / "display-states.jpg", quality=QUALITY, optimize=True)
sizes = []
for state in ("tracking", "two-alarms", "dead"):
    for size, (wide, high) in SIZES.items():
        words = f"{state}, {size.replace('x', ' x ')}"
        sizes.append((words, small(options.screens / f"{state}-{size}.png", SHEET_WIDTH if wide > high else 240)))
sheet(sizes, len(SIZES)).save(HERE / "display-sizes.jpg", quality=QUALITY, optimize=True)
pair = [("the first edition", small(options.before, 720))]
pair += [("the second", small(options.screens / "alarm-high-1920x1080.png", 720))]
sheet(pair, 2).save(HERE / "display-before-after.jpg", quality=QUALITY, optimize=True)
