"""What MiniLM alone puts into mini's vector: the model is scored with the path past MiniLM cut off.

    python examples/mini/without_path.py mini --data DATA/eval --output scores/without-path

The last row of the ablations in the model card. Nothing is trained: the path (`residual`) of the trained model is off.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import lusifer
from lusifer.embedder.assemble import lusifer_model
from lusifer.errors import LusiferError
from lusifer.evaluation.run.evaluate import Options, evaluate

TASKS = ("SIB200ZeroShotTopics", "SIB200Topics", "SIB200TranslationToEnglish", "XQuADToEnglish", "XQuADFromEnglish")


def main() -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    try:
        embedder = lusifer.load(options.model)
        lusifer_model(embedder).config.residual = False
        name = f"{options.model} without the path"
        evaluate(embedder, Options(data=options.data, tasks=TASKS), options.output, name=name)
    except LusiferError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
