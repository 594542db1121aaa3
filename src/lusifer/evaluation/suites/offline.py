"""The suites that need no hub: what they measure, as rows.

`offline` reads files in a folder: SIB-200 (topics, clusters, translations), XQuAD (the paragraph that answers a
question) and similarity. `sample` reads the parallel sentences that come with the package.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from lusifer.errors import DataError, UsageError
from lusifer.evaluation.suites import sample as crosslingual
from lusifer.evaluation.suites import sib, sts, xquad
from lusifer.evaluation.suites.rows import Row

ENGLISH = "en"
TOPIC = "Identify the topic of the text."
SAME = "Find a sentence with the same meaning."
ANSWER = "Given a question, find passages that answer it."


def _topics(task: str, title: str, code: str, cross: bool) -> Row:
    return Row(code, task, "Classification", (code,), "dev", "accuracy", TOPIC, True, cross, 800, None, title)


def _translation(task: str, title: str, split: str, code: str, to_english: bool, cost: int) -> Row:
    pair = f"{code}-{ENGLISH}" if to_english else f"{ENGLISH}-{code}"
    return Row(code, task, "BitextMining", (pair,), split, "accuracy", SAME, True, True, cost, None, title)


def _paragraphs(task: str, title: str, code: str, pair: str) -> Row:
    return Row(code, task, "Retrieval", (pair,), "all", "accuracy", ANSWER, False, "-" in pair, 1430, None, title)


def offline(codes: Sequence[str], data: Path) -> list[Row]:
    """List what the offline suite measures.

    Args:
        codes: Languages. English has no row where it would be compared with itself.
        data: The folder: similarity has rows only for the languages whose file is there.
    """
    rows: list[Row] = [
        Row(
            *(code, "STSFile", "STS", (code,), "all", "cosine_spearman", SAME, True, False, None, None),
            "similarity of sentences, from sts-xx.jsonl",
        )
        for code in codes
        if sts.file_of(data, code).is_file()
    ]
    for code in codes:
        cross = code != ENGLISH
        rows += [
            _topics("SIB200Topics", "SIB-200 topics, learned in the language", code, False),
            Row(
                *(code, "SIB200Clusters", "Clustering", (code,), "all", "v_measure", TOPIC, True, False, 800, None),
                "SIB-200 topics, found by k-means",
            ),
            _paragraphs("XQuADParagraphs", "XQuAD, question and paragraph in the language", code, code),
        ]
        if cross:
            rows += [
                _topics("SIB200ZeroShotTopics", "SIB-200 topics, learned on English", code, True),
                _translation(
                    *("SIB200TranslationToEnglish", "SIB-200, the English translation among 204", "train"),
                    *(code, True, 2 * sib.LARGE),
                ),
                _translation(
                    *("SIB200TranslationFromEnglish", "SIB-200, the translation of the English among 204", "train"),
                    *(code, False, 2 * sib.LARGE),
                ),
                _translation(
                    *("SIB200TranslationToEnglishDev", "SIB-200, the English translation among 99", "dev"),
                    *(code, True, 198),
                ),
                _paragraphs("XQuADToEnglish", "XQuAD, paragraph in English", code, f"{code}-{ENGLISH}"),
                _paragraphs("XQuADFromEnglish", "XQuAD, question in English", code, f"{ENGLISH}-{code}"),
            ]
    return rows


def sample(codes: Iterable[str]) -> list[Row]:
    """List what the packaged sentences measure: translations, both ways.

    Raises:
        UsageError: A language is not among them.
    """
    sample_ = crosslingual.sample()
    count, codes = len(sample_.topics), list(codes)
    unknown = [code for code in codes if code not in sample_.texts]
    if unknown:
        raise UsageError(f"language {unknown[0]!r} is not in the sample: use some of {', '.join(sample_.texts)}")
    return [
        _translation(
            *("SampleTranslationToEnglish", f"packaged sentences, the English translation among {count}", "sample"),
            *(code, True, 2 * count),
        )
        for code in codes
        if code != ENGLISH
    ] + [
        _translation(
            *("SampleTranslationFromEnglish", f"packaged sentences, the translation among {count}", "sample"),
            *(code, False, 2 * count),
        )
        for code in codes
        if code != ENGLISH
    ]


def parallel(data: Path, codes: Sequence[str]) -> dict[str, tuple[str, ...]] | None:
    """Give the first 204 sentences of SIB-200 that all languages with a file have; None for less than two."""
    there = [code for code in codes if sib.file_of(data, code, "train").is_file()]
    if ENGLISH not in there or len(there) < 2:
        return None
    splits = {code: sib.read(sib.file_of(data, code, "train")) for code in there}
    shared = set.intersection(*(set(split.ids) for split in splits.values()))
    kept = sorted(shared)[: sib.LARGE]
    return {code: tuple(dict(zip(split.ids, split.texts))[number] for number in kept) for code, split in splits.items()}


def files(data: Path, codes: Sequence[str]) -> list[Path]:
    """List the files of a folder that the rows of these languages read."""
    read = dict.fromkeys([ENGLISH, *codes])
    found = [sib.file_of(data, code, split) for code in read for split in ("train", "dev")]
    found += [xquad.file_of(data, code) for code in read] + [sts.file_of(data, code) for code in read]
    return [file for file in found if file.is_file()]


def check(data: Path, codes: Sequence[str]) -> None:
    """Read every file before the model is loaded: a damaged one must not be found after hours.

    Raises:
        DataError: There is nothing to measure in the folder, or a file is damaged.
    """
    there = files(data, codes)
    if not there:
        raise DataError(
            f"{data}: nothing to measure in it: expected sib200-xx-train.jsonl.gz and sib200-xx-dev.jsonl.gz, "
            "xquad-xx.json or sts-xx.jsonl, xx for a language code such as en"
        )
    for file in there:
        reader = {"sib200": sib.read, "xquad": xquad.read, "sts": sts.read}[file.name.split("-")[0]]
        reader(file)


def absent(row: Row, data: Path) -> str | None:
    """Say which file a row lacks; None where all are there."""
    needed: list[Path] = []
    sides = row.subsets[0].split("-")
    if row.task.startswith("SIB200"):
        needed = [sib.file_of(data, code, split) for code in sides for split in _splits(row)]
        if row.task == "SIB200ZeroShotTopics":
            needed.insert(0, sib.file_of(data, ENGLISH, "train"))
    elif row.task.startswith("XQuAD"):
        needed = [xquad.file_of(data, code) for code in sides]
    elif row.task == "STSFile":
        needed = [sts.file_of(data, row.language)]
    return next((f"{file.name}: no such file" for file in needed if not file.is_file()), None)


def _splits(row: Row) -> tuple[str, ...]:
    if row.task == "SIB200ZeroShotTopics":
        return ("dev",)
    return (row.split,) if row.type == "BitextMining" else ("train", "dev")
