"""Every language of a task in one picture: a line a language, a column a model, grouped by published facts.

    python examples/mini/languages.py SIB200TranslationToEnglishDev mini=scores/mini-205 --output languages.png

The folders are what `lusifer evaluate MODEL --languages all` writes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from PIL import Image

from lusifer.errors import LusiferError
from lusifer.evaluation.report import atlas, figures
from lusifer.evaluation.scores import results


def main() -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(description="Draw the scores of many languages.")
    parser.add_argument("task", help="its name in the evaluation folders")
    parser.add_argument("models", nargs="+", metavar="NAME=FOLDER", help="an evaluation folder, and its name")
    parser.add_argument("--title", help="by default the task's")
    parser.add_argument("--output", type=Path, required=True, metavar="PICTURE", help="a .png file")
    options = parser.parse_args()
    if options.output.suffix != ".png":
        parser.error(f"{options.output}: expected a name that ends in .png")
    cells: dict[str, dict[str, float | None]] = {}
    title = options.title
    try:
        for words in options.models:
            name, sign, folder = words.partition("=")
            if not sign:
                parser.error(f"{words}: expected NAME=FOLDER")
            for entry in results.read(Path(folder)).scores:
                if entry.task == options.task:
                    title = title or entry.title
                    cells.setdefault(entry.language, {})[name] = entry.score
        figures.write(atlas.atlas(cells, f"{title or options.task} (%)"), options.output)
        # Few colours: a quarter of the bytes.
        Image.open(options.output).convert("RGB").quantize(64).save(options.output, "png", optimize=True)
    except LusiferError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
