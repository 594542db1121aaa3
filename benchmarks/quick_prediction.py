"""How well a cheap score predicts the mean of a language, over public models; and the choice of the suite `quick`.

python benchmarks/quick_prediction.py >benchmarks/results/quick-prediction.md

What is predicted is the mean of a language's *other* tasks: over all tasks a prediction predicts itself in part. Two
measures. Spearman's rank correlation, over the models that have nine tenths of a language's public rows, by the rows
that all of these have. And the share of pairs of models that the cheap tasks put in the same order as the others do:
each pair by the rows that both have, so that all 29 models count. Reranking by `map` and by `map_at_1000` is one here.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import combinations
from math import comb

import numpy as np
from scipy import stats

from lusifer import languages
from lusifer.evaluation.public.league import League, league
from lusifer.evaluation.public.table import table
from lusifer.evaluation.scores.averages import LANGUAGE, TASK
from lusifer.evaluation.scores.bootstrap import Key
from lusifer.evaluation.suites import benchmark
from lusifer.io import markdown

TABLE = table()
MODELS = TABLE.models
ROWS = {row.key: row for row in benchmark.suite("paper")}
CODES = [language.code for language in languages.paper()]
KEYS = {code: [key for key in ROWS if key[LANGUAGE] == code] for code in CODES}
SCORES = {
    (model, entry.key): np.nan if entry.score is None else entry.score
    for model in MODELS for entry in TABLE.results(model, ROWS.values()).scores
}  # fmt: skip
PAIRS = list(combinations(range(len(MODELS)), 2))
EVERY = np.ones(len(PAIRS), dtype=bool)

TEXTS = 166_000
"""What all rows of `quick` may read together: what the suite read before it was chosen anew."""
GAIN = 0.002
"""A task is taken that puts this share more of the pairs in the right order."""
LEAST = 2
"""Rows that every language gets, by tasks that gain less, if need be."""
CLOSE = 5.0
"""Percent points between the means of two models that are hard to tell apart."""
DRAWS, SEED = 2000, 0

Rule = Callable[[np.ndarray], list[Key]]
"""From the pairs of models that may be looked at to the rows of a suite."""


def family(model: str) -> str:
    """Models that learned from one another or from the same data, by name: they are held out together."""
    name = model.lower()
    for word in ("mistral", "gritlm", "sfr"):  # all of Mistral 7B, two trained on from E5-Mistral
        if word in name:
            return "mistral"
    for word in ("multilingual-e5", "paraphrase"):
        if word in name:
            return word
    owner, _, rest = name.partition("/")
    return rest if owner == "sentence-transformers" else owner


class Pairs:
    """Pairs of models: how often some rows put them in the same order as the other rows of the language do."""

    def __init__(self, looked: np.ndarray) -> None:
        """Take the pairs that may be looked at, (pairs,) of bool; one counts that shares half of a language's rows."""
        self._known: dict[frozenset[Key], tuple[float, float, float]] = {}
        self._differences, self._there = {}, {}
        for code in CODES:
            scores = np.array([[SCORES[model, key] for key in KEYS[code]] for model in MODELS])
            apart = np.array([scores[one] - scores[other] for one, other in PAIRS])
            there = ~np.isnan(apart)
            public = (~np.isnan(scores)).any(axis=0).sum()
            there &= (looked & (there.sum(axis=1) >= max(4, public / 2)))[:, None]
            self._differences[code], self._there[code] = np.where(there, apart, 0.0), there.astype(float)

    def agree(self, keys: Iterable[Key]) -> np.ndarray:
        """Give the means over languages of three shares of pairs, (3,).

        Those in the order of the other rows, in that of all rows, and of those that the other rows put less than
        `CLOSE` apart the share in their order. A language without rows counts as guessed.
        """
        rows = [frozenset(key for key in keys if key[LANGUAGE] == code) for code in CODES]
        shares = [self._language(code, own) if own else (0.5,) * 3 for code, own in zip(CODES, rows)]
        return np.ma.masked_invalid(shares).mean(axis=0).filled(np.nan)

    def _language(self, code: str, keys: frozenset[Key]) -> tuple[float, float, float]:
        if keys not in self._known:
            chosen = np.array([key in keys for key in KEYS[code]], dtype=float)
            apart, there = self._differences[code], self._there[code]
            mine, count = apart @ chosen, there @ chosen
            others, rest = apart.sum(axis=1) - mine, there.sum(axis=1) - count
            both = (count > 0) & (rest > 0)
            right = np.sign(mine) == np.sign(others)
            close = both & (np.abs(others) < CLOSE * np.maximum(rest, 1))
            whole = np.sign(mine) == np.sign(apart.sum(axis=1))
            shares = ((right, both), (whole, count > 0), (right, close))
            self._known[keys] = tuple(each[at].mean() if at.any() else np.nan for each, at in shares)
        return self._known[keys]


def texts(keys: Iterable[Key]) -> int:
    """How many texts a model reads in some rows."""
    return sum(ROWS[key].cost or 0 for key in keys)


SMALL = [key for key, row in ROWS.items() if row.cost is not None and row.cost <= benchmark.QUICK_TEXTS]
BY_TASK = {task: [key for key in SMALL if key[TASK] == task] for _, task in sorted(SMALL, key=lambda key: key[TASK])}


def widest(looked: np.ndarray) -> list[Key]:
    """The rule before: for each language and type the task that the most languages have, the cheapest of several."""
    spread = Counter(ROWS[key].figure for key in SMALL)
    chosen: dict[tuple[str, str], Key] = {}
    for key in sorted(SMALL, key=lambda key: (-spread[ROWS[key].figure], ROWS[key].cost, key[TASK])):
        chosen.setdefault((key[LANGUAGE], ROWS[key].type), key)
    return list(chosen.values())


def best_single(looked: np.ndarray) -> list[Key]:
    """For each language and type the task that alone puts the most pairs in the right order, over its languages."""
    pairs = Pairs(looked)
    value = {
        task: np.nanmean([pairs._language(key[LANGUAGE], frozenset([key]))[0] for key in keys] or [0.0])
        for task, keys in BY_TASK.items()
    }
    chosen: dict[tuple[str, str], Key] = {}
    for key in sorted(SMALL, key=lambda key: (-np.nan_to_num(value[key[TASK]]), ROWS[key].cost)):
        chosen.setdefault((key[LANGUAGE], ROWS[key].type), key)
    return list(chosen.values())


def cheapest(looked: np.ndarray) -> list[Key]:
    """In each language the cheapest rows that together read a fourteenth of the texts."""
    found: list[Key] = []
    for code in CODES:
        left = TEXTS / len(CODES)
        for key in sorted((key for key in SMALL if key[LANGUAGE] == code), key=lambda key: ROWS[key].cost):
            if ROWS[key].cost <= left:
                found.append(key)
                left -= ROWS[key].cost
    return found


def one_by_one(looked: np.ndarray) -> list[Key]:
    """The rule of `quick`: take the task, in all its languages, that gains most, until none gains `GAIN`.

    Then languages with fewer than `LEAST` rows get the task that loses least, as far as they have any.
    """
    pairs, found, value = Pairs(looked), [], 0.5
    while options := _options(pairs, found, BY_TASK):
        best, task = max(options)
        if best < value + GAIN:
            break
        value, found = best, found + BY_TASK[task]
    while True:
        rows = Counter(key[LANGUAGE] for key in found)
        short = {key[TASK] for key in SMALL if rows[key[LANGUAGE]] < LEAST and key not in found}
        options = _options(pairs, found, short)
        if not options:
            return found
        found = found + BY_TASK[max(options)[1]]


def _options(pairs: Pairs, found: Sequence[Key], tasks: Iterable[str]) -> list[tuple[float, str]]:
    """Tasks that are not taken and can be paid for, with the share of pairs in order when each is added."""
    new = [task for task in tasks if BY_TASK[task][0] not in found and texts([*found, *BY_TASK[task]]) <= TEXTS]
    return [(float(np.nan_to_num(pairs.agree([*found, *BY_TASK[task]])[0])), task) for task in new]


def held_out(rule: Rule) -> np.ndarray:
    """Choose without a family of models, look at the pairs of one of it with one of the others; over all families."""
    families = [family(model) for model in MODELS]
    found = []
    for left in sorted(set(families)):
        ours = [(families[one] == left, families[other] == left) for one, other in PAIRS]
        apart = np.array([one != other for one, other in ours])
        chosen = rule(np.array([not one and not other for one, other in ours]))
        found.append(Pairs(apart).agree(chosen))
    return np.nanmean(found, axis=0)


def random_rules() -> Iterator[list[Key]]:
    """For each language and type any small task, a hundred times."""
    generator = np.random.default_rng(SEED)
    for _ in range(100):
        chosen: dict[tuple[str, str], Key] = {}
        for place in generator.permutation(len(SMALL)):
            chosen.setdefault((SMALL[place][LANGUAGE], ROWS[SMALL[place]].type), SMALL[place])
        yield list(chosen.values())


def complete(code: str, share: float = 0.9) -> tuple[list[str], list[Key]]:
    """The models that have nine tenths of a language's public rows, and the rows that all of these have."""
    public = [key for key in KEYS[code] if any(not np.isnan(SCORES[model, key]) for model in MODELS)]
    has = {model: {key for key in public if not np.isnan(SCORES[model, key])} for model in MODELS}
    models = [model for model in MODELS if len(has[model]) >= share * len(public)]
    return models, [key for key in public if all(key in has[model] for model in models)]


def counterparts(model: str, code: str, similar: Sequence[Key]) -> float:
    """The mean of what is public of the tasks of the offline suites: SIB-200 twice, paragraphs, similarity.

    XQuAD itself is not in the public table; Belebele stands for it. Tasks of similarity, `similar`, count as one.
    """
    row = languages.language(code)
    language = {"ar": "arb", "fa": "pes", "sw": "swh"}.get(code, row.code3)
    name = f"{language}_{'Hang' if row.script == 'Kore' else row.script}"
    cells = [("SIB200Classification", name), ("SIB200ClusteringS2S", name), ("BelebeleRetrieval", f"{name}-{name}")]
    found = [TABLE.scores.get((task, "test", subset), {}).get(model, np.nan) for task, subset in cells]
    found += [float(np.mean([SCORES[model, key] for key in similar]))] if similar else []
    return float(np.mean(found))


def rank_correlation(one: np.ndarray, other: np.ndarray) -> str:
    """Spearman's over models, with the 95 % interval of a bootstrap over these."""
    drawn = np.random.default_rng(SEED).integers(0, len(one), (DRAWS, len(one)))
    ranks = [stats.zscore(stats.rankdata(each[drawn], axis=1), axis=1) for each in (one, other)]
    low, high = np.nanpercentile((ranks[0] * ranks[1]).mean(axis=1), [2.5, 97.5])  # a draw of one model has none
    return f"{stats.spearmanr(one, other).statistic:.2f} ({low:.2f} to {high:.2f})"


def predicted(scores: np.ndarray, chosen: np.ndarray) -> tuple[str, str]:
    """Correlation of the chosen rows' mean with the mean of the others and of all; `scores` is (models, rows)."""
    if not chosen.any() or chosen.all():
        return "none", "none"
    mine = scores[:, chosen].mean(axis=1)
    return rank_correlation(mine, scores[:, ~chosen].mean(axis=1)), rank_correlation(mine, scores.mean(axis=1))


def any_five(scores: np.ndarray) -> str:
    """The rank correlations of five tasks with the others: median, and the middle 80 of 100 sets."""
    count = scores.shape[1]
    if count < 6:
        return "fewer than six rows"
    generator = np.random.default_rng(SEED)
    sets = list(combinations(range(count), 5)) if comb(count, 5) <= 500 else [
        generator.choice(count, 5, replace=False) for _ in range(500)
    ]  # fmt: skip
    rest = [np.setdiff1d(np.arange(count), five) for five in sets]
    found = [stats.spearmanr(scores[:, list(five)].mean(axis=1), scores[:, others].mean(axis=1)).statistic
             for five, others in zip(sets, rest, strict=True)]  # fmt: skip
    low, middle, high = np.percentile(found, [10, 50, 90])
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def by_language(suites: dict[str, Collection[Key]]) -> list[list[str]]:
    """A line a language: models, rows, and how well each suite predicts the others and all."""
    lines = []
    for code in CODES:
        models, keys = complete(code)
        scores = np.array([[SCORES[model, key] for key in keys] for model in models])
        cells = [cell for chosen in suites.values()
                 for cell in predicted(scores, np.array([key in chosen for key in keys]))]  # fmt: skip
        similar = [key for key in keys if ROWS[key].type == "STS"]
        offline = np.array([counterparts(model, code, similar) for model in models])
        there = ~np.isnan(offline)
        own = {"SIB200Classification", "SIB200ClusteringS2S", "BelebeleRetrieval"}
        others = np.array([key[TASK] not in own and key not in similar for key in keys])
        told = f"{rank_correlation(offline[there], scores[there][:, others].mean(axis=1))}, {there.sum()}" \
            if there.sum() > 3 else f"{there.sum()} models"  # fmt: skip
        lines.append([code, str(len(models)), str(len(keys)), *cells, told, any_five(scores)])
    values = [[float(line[at].split()[0]) for line in lines if "(" in line[at]] for at in range(3, len(lines[0]))]
    return [*lines, ["mean", "", "", *(f"{np.mean(column):.2f}" for column in values)]]


def over_all(suites: dict[str, Collection[Key]]) -> list[list[str]]:
    """The same for the mean over languages, by the models and rows that `lusifer public` compares."""
    found = league([TABLE.results(model, ROWS.values()) for model in MODELS])
    lines = []
    for name, chosen in suites.items():
        mine, others = ([key for key in found.keys if (key in chosen) == wanted] for wanted in (True, False))
        first, second, whole = (_means(found, keys) for keys in (mine, others, found.keys))
        lines.append([name, str(len(found.models)), f"{len(mine)} of {len(found.keys)}",
                      rank_correlation(first, second), rank_correlation(first, whole)])  # fmt: skip
    return lines


def _means(found: League, keys: Iterable[Key]) -> np.ndarray:
    means = found.means(keys)
    return np.array([means[model] for model in found.models])


def rules() -> tuple[list[list[str]], list[Key], list[Key]]:
    """Compare the rules on all models and held out; the rows of the one before and of `quick`."""
    lines, pairs = [], Pairs(EVERY)
    named = {
        "before: the widest task a type": widest,
        "the best single task a type": best_single,
        "the cheapest rows": cheapest,
        "**task by task, what gains most**": one_by_one,
    }
    chosen = {name: rule(EVERY) for name, rule in named.items()}
    for name, rule in named.items():
        keys, out = chosen[name], held_out(rule)
        shown = [f"{100 * share:.1f}" for share in (*pairs.agree(keys), *out)]
        lines.append([name, str(len(keys)), f"{texts(keys):,}", *shown])
    many = np.array([pairs.agree(keys) for keys in random_rules()])
    low, high = 100 * np.percentile(many, [10, 90], axis=0)
    cells = [f"{one:.1f} to {other:.1f}" for one, other in zip(low, high, strict=True)]
    lines.append(["any small task a type, 80 of 100 draws", "63", "", *cells, "", "", ""])
    return lines, list(chosen.values())[0], list(chosen.values())[-1]


def main() -> None:
    """Print the page; end with an error where the packaged suite is not the one that the rule gives."""
    lines, before, quick = rules()
    heads = ["of the others", "of all", "close ones"]
    head = ["rule", "rows", "texts", *heads, *(f"held out, {words}" for words in heads)]
    suites = {"before": before, "quick": quick}
    out = ["# What a cheap score predicts", "", f"Public: {TABLE.source}.", "", "Pairs of models in the right order, "
           "per cent, mean over 14 languages; held out: chosen without one family of models, for the pairs of one "
           "of it with one of the others.", "", markdown.table(head, lines), ""]  # fmt: skip
    tasks = list(dict.fromkeys(task for _, task in quick))
    out += [f"Tasks of `quick`, in the order in which they were taken: {', '.join(tasks)}.", ""]
    heads = [f"{name}, {of}" for name in suites for of in ("others", "all")]
    head = ["language", "models", "rows", *heads, "offline counterparts, others, models", "any five, others"]
    out += ["Spearman's rank correlation over models, with the 95 % interval of a bootstrap over these (any five: "
            "the middle 80 of 100 sets):", "", markdown.table(head, by_language(suites)), ""]  # fmt: skip
    out += ["Mean over languages:", "", markdown.table(["suite", "models", "rows", "others", "all"], over_all(suites))]
    sys.stdout.write("\n".join(out) + "\n")
    if {row.key for row in benchmark.suite("quick")} != set(quick):
        raise SystemExit("quick in benchmark.toml is another: put the tasks above there")


if __name__ == "__main__":
    main()
