"""How often the language guard is wrong: texts of the card's languages, of others, romanised and mixed.

    pip install anyascii
    python benchmarks/guard.py --data DATA --output benchmarks/results/guard.md

Romanised texts are transliterated by anyascii, in small letters; those of the Arabic line are SIB-200's own. Mixed ones
take each word at random from a romanised sentence or its English translation.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from anyascii import anyascii

from lusifer.io.markdown import table
from lusifer.serving import guard

MOST = 300
ROMANISED = ("ru", "fa", "ar", "ko", "hi", "bn", "te")


def texts(file: Path, key: str = "text", most: int = MOST) -> list[str]:
    """The first texts of a packed file of JSON lines."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line)[key] for line, _ in zip(lines, range(most))]


def share(name: str, mine: guard.LanguageGuard, found: Sequence[str]) -> list[str]:
    """A row: how many texts are long enough, and how many of them are found."""
    long = [text for text in found if sum(map(str.isalpha, text[: guard.READ_LETTERS])) >= guard.FEWEST_LETTERS]
    hits = [mine.find(text) for text in long]
    kinds = [f"{100 * sum(hit is not None and hit[0] == kind for hit in hits) / len(long):.1f}" for kind in KINDS]
    return [name, f"{len(long):,}", f"{100 * sum(hit is not None for hit in hits) / len(long):.1f}", *kinds]


KINDS = ("script", "language", "unclear", "mixed")


def main() -> None:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    data, mine, chance = options.data, guard.for_model("mini", identify=True), random.Random(0)
    sib = {file.name[7:-13]: texts(file) for file in sorted(data.glob("eval/sib200-*-dev.jsonl.gz"))}
    own = {code: sib[code] for code in sorted(mine.codes)}
    short = {code: texts(data / f"monolingual/{code}.jsonl.gz") for code in own if code != "en"}
    others = {code: found for code, found in sib.items() if code not in own}
    labels = set(guard.identifier().labels)
    rows = [
        share("its 14 languages, sentences (SIB-200)", mine, sum(own.values(), [])),
        share("13 of them, short sentences (monolingual)", mine, sum(short.values(), [])),
        share("English paragraphs", mine, texts(data / "english/passages.jsonl.gz", most=2000)),
        share("English questions, titles, lists of words", mine, texts(data / "english/pairs.jsonl.gz", "query", 2000)),
        share(f"{len(others)} other languages and scripts (SIB-200)", mine, sum(others.values(), [])),
        share("those of them that py3langid knows", mine, sum((v for k, v in others.items() if k in labels), [])),
    ]
    roman = {code: [anyascii(text).lower() for text in sib[code]] for code in ROMANISED}
    rows += [share(f"romanised: {code}", mine, found) for code, found in roman.items()]
    rows.append(share("romanised Arabic of SIB-200", mine, sib["arb_Latn"]))
    for code in ROMANISED:
        pairs = [zip(one.split(), other.split()) for one, other in zip(roman[code], sib["en"])]
        rows.append(
            share(f"romanised {code} and English, mixed", mine, [" ".join(map(chance.choice, p)) for p in pairs])
        )
    quiet = sorted(
        (sum(mine.find(text) is not None for text in found) / len(found), code) for code, found in others.items()
    )
    missed = ", ".join(code for part, code in quiet if part < 0.5)
    made = f"py3langid {version('py3langid')}, anyascii {version('anyascii')}"
    words = [
        f"Per cent of texts of at least {guard.FEWEST_LETTERS} letters that the guard of `mini` finds, and as what.",
        "Its card has 14 languages. The first four rows are its false alarms, the others should be 100.",
        f"Made by `python benchmarks/guard.py --data DATA --output FILE`; {made}.\n",
        table(["texts", "count", "found", *KINDS], rows),
        f"\nFound in fewer than half of the texts: {missed}.\n",
    ]
    options.output.write_text("\n".join(words), encoding="utf-8")


if __name__ == "__main__":
    main()
