"""The suite `robust` in Markdown: what each disguise costs, over the languages and in each."""

from __future__ import annotations

from collections.abc import Sequence

from lusifer.evaluation.report.facts import Facts
from lusifer.evaluation.report.words import count_of, language_name, score_cell
from lusifer.evaluation.scores import disguised
from lusifer.evaluation.scores.disguised import Change, LanguageChange
from lusifer.io.markdown import table

SPARED = "does not apply"


def alone(facts: Facts) -> bool:
    """Whether all evaluations are of texts in disguise, whose scores are never in one mean."""
    return all(disguised.least_share(each) is not None for each in facts.evaluations)


def sentences(facts: Facts) -> list[str]:
    """How much was measured, and for each model what breaks it, what costs something, and what nothing."""
    entries = [entry for each in facts.evaluations for entry in each.scores]
    gone = sum(entry.score is None for entry in entries)
    found = [
        f"{count_of(len(facts.names), 'model')}: {count_of(len(entries) - gone, 'score')} measured, {gone} missing."
    ]
    for name, result in zip(facts.names, facts.evaluations, strict=True):
        found += [f"{name}. {line}" for line in disguised.verdict(disguised.changes(result, facts.seed))]
    return found


def blocks(facts: Facts) -> list[str]:
    """The section: how to read it, then for each base a table over the languages, and one in each for each model."""
    least = {share for each in facts.evaluations if (share := disguised.least_share(each)) is not None}
    found = {
        name: made
        for name, result in zip(facts.names, facts.evaluations, strict=True)
        if (made := disguised.changes(result, facts.seed))
    }
    if not found:
        return []
    texts = [
        "## Texts in disguise",
        "A change is the score of texts in disguise minus that of the same texts as they were, in percent points, with "
        "its 95 % interval by paired bootstrap; texts that languages share are drawn together. What is searched is as "
        f"it was. A disguise that changes fewer than {max(least):.0%} of the texts of a language {SPARED} there, which "
        "is neither 0 nor missing; of a score all texts are part, also those that it does not change. Intervals are "
        "not corrected for their number: of twenty disguises that cost nothing about one shows something.",
    ]
    for base in dict.fromkeys(each.base for made in found.values() for each in made):
        mine = {name: [each for each in made if each.base == base] for name, made in found.items()}
        texts += [f"**{base}**", _over_languages(mine)]
        for name, made in mine.items():
            texts += [
                words for words in (_by_language(made, name if len(mine) > 1 else ""), *_reasons(name, made)) if words
            ]
    return texts


def _over_languages(found: dict[str, list[Change]]) -> str:
    """A row a disguise: in which languages, how many texts it changes, and the mean change of each model."""
    rows = []
    for task in dict.fromkeys(each.task for made in found.values() for each in made):
        same = {name: next((each for each in made if each.task == task), None) for name, made in found.items()}
        first = next(each for each in same.values() if each is not None)
        row = [
            first.disguise,
            ", ".join(each.language for each in first.languages) or f"{SPARED} in any",
            _share(first),
        ]
        for each in same.values():
            row += ["", "", ""] if each is None or each.change is None else _numbers(each)
        rows.append(row)
    several = len(found) > 1
    header = ["disguise", "languages", "texts changed"]
    for name in found:
        header += [f"{name}: {words}" if several else words for words in ("as they were", "in disguise", "change")]
    return table(header, rows, left=2)


def _numbers(each: Change | LanguageChange) -> list[str]:
    return [score_cell(each.clean), score_cell(each.disguised), _change(each)]


def _change(each: Change | LanguageChange) -> str:
    ends = "" if each.low is None else f" ({score_cell(each.low, '+')} to {score_cell(each.high, '+')})"
    return f"{score_cell(each.change, '+')}{ends}"


def _share(each: Change) -> str:
    known = [(row.changed, row.of) for row in each.languages if row.changed is not None and row.of]
    return f"{sum(one for one, _ in known) / sum(of for _, of in known):.0%}" if known else ""


def _by_language(found: Sequence[Change], name: str) -> str:
    """A row a language, a column a disguise; those in a single language are told by the table above."""
    wide = [each for each in found if len(each.languages) > 1]
    codes = dict.fromkeys(row.language for each in wide for row in each.languages)
    rows = []
    for code in codes:
        cells = [next((row for row in each.languages if row.language == code), None) for each in wide]
        clean = next((row.clean for row in cells if row is not None), None)
        changes = [SPARED if row is None else _change(row) if row.change is not None else "missing" for row in cells]
        rows.append([language_name(code), score_cell(clean), *changes])
    if not rows:
        return ""
    made = table(["language", "as they were", *(each.disguise for each in wide)], rows)
    return f"{name}, change in each language:\n\n{made}" if name else made


def _reasons(name: str, found: Sequence[Change]) -> list[str]:
    """Why changes are missing."""
    why: dict[tuple[str, str], list[str]] = {}
    for each in found:
        for row in each.languages:
            if row.reason:
                why.setdefault((each.disguise, row.reason), []).append(row.language)
    return [f"- {name}: missing: {words} ({', '.join(codes)}): {reason}" for (words, reason), codes in why.items()]
