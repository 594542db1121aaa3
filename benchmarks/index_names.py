"""Is a name that is typed in its own script found, in the 14 languages of the paper: by vectors, words and both?

    python benchmarks/index_names.py [--model mini] [--output benchmarks/results/index-names.md]

A sentence with a name in each language stands among the sentences of the demo in 14 languages and the English passages
of the sample. The question is the name alone, as one types it into a search box.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib import resources
from pathlib import Path

from lusifer import languages
from lusifer.index.index import Index
from lusifer.io import parallel_text, rows

SENTENCES = {
    "en": ("Wollstonecraft", "Mary Wollstonecraft wrote about the rights of women in 1792."),
    "es": ("Cervantes", "Miguel de Cervantes perdió el uso de una mano en Lepanto."),
    "ru": ("Ахматова", "Поэтесса Анна Ахматова жила в Фонтанном доме."),
    "fr": ("Lavoisier", "Antoine Lavoisier a donné son nom à l’oxygène."),
    "vi": ("Nguyễn Du", "Nguyễn Du viết Truyện Kiều bằng chữ Nôm."),
    "fa": ("فردوسی", "ابوالقاسم فردوسی شاهنامه را در توس سرود."),
    "id": ("Kartini", "Raden Ajeng Kartini menulis surat kepada teman-temannya di Belanda."),
    "ar": ("ابن خلدون", "كتب ابن خلدون المقدمة في قلعة بني سلامة."),
    "fi": ("Sibelius", "Jean Sibelius sävelsi Finlandian vuonna 1899."),
    "ko": ("세종 대왕", "세종 대왕은 1443년에 한글을 만들었다."),
    "hi": ("प्रेमचंद", "मुंशी प्रेमचंद ने गोदान लिखा।"),
    "bn": ("রবীন্দ্রনাথ ঠাকুর", "রবীন্দ্রনাথ ঠাকুর গীতাঞ্জলি লিখেছিলেন।"),
    "te": ("పోతన", "బమ్మెర పోతన భాగవతాన్ని తెలుగులోకి అనువదించాడు."),
    "sw": ("Shaaban Robert", "Shaaban Robert aliandika mashairi kwa Kiswahili."),
}


def main() -> int:
    """Write the page; status 1 unless a hybrid search finds each name among its first three."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    others = [text for texts in parallel_text.sample().texts.values() for text in texts]
    sample = resources.files("lusifer").joinpath("data/sample/passages.jsonl")
    with resources.as_file(sample) as file:
        others += list(rows.read(file, lambda row, _: row["text"]))
    found: dict[str, dict[str, int | None]] = {}
    with tempfile.TemporaryDirectory() as place:
        index = Index.create(Path(place) / "index", arguments.model, device="cpu")
        index.add({"id": code, "text": text} for code, (_, text) in SENTENCES.items())
        index.add({"id": f"other {number}", "text": text} for number, text in enumerate(others))
        names = [name for name, _ in SENTENCES.values()]
        for mode in ("vector", "words", "hybrid"):
            ids = [[hit.id for hit in hits] for hits in index.search(names, top_k=len(index), mode=mode)]
            places = zip(SENTENCES, ids, strict=True)
            found[mode] = {code: own.index(code) + 1 if code in own else None for code, own in places}
        size = len(index)
    english = {language.code: language.name for language in languages.paper()}
    lines = [
        f"| {english[code]} | {name} | " + " | ".join(str(found[mode][code] or "not found") for mode in found) + " |"
        for code, (name, _) in SENTENCES.items()
    ]
    page = [
        f"The place of the sentence that has a name, among {size:,} sentences and passages; the question is the name",
        f"alone. Model: {arguments.model}. By",
        "`python benchmarks/index_names.py --output benchmarks/results/index-names.md`.", "",
        "| language | name | `vector` | `words` | `hybrid` |", "|---|---|--:|--:|--:|", *lines, "",
    ]  # fmt: skip
    sys.stdout.write("\n".join(page))
    if arguments.output:
        arguments.output.write_text("\n".join(page), encoding="utf-8")
    return int(any(place is None or place > 3 for place in found["hybrid"].values()))


if __name__ == "__main__":
    raise SystemExit(main())
