"""The suite `robust` in Markdown: the change by each perturbation, over the languages and in each language."""

from __future__ import annotations

from collections.abc import Sequence

from lusifer.evaluation.report.facts import Facts
from lusifer.evaluation.report.words import count_of, language_name, score_cell
from lusifer.evaluation.scores import perturbed
from lusifer.evaluation.scores.perturbed import Change, LanguageChange
from lusifer.io.markdown import table

SPARED = "does not apply"


def alone(facts: Facts) -> bool:
    """Whether all evaluations are of perturbed texts; their scores are never averaged over tasks."""
    return all(perturbed.least_share(each) is not None for each in facts.evaluations)


def sentences(facts: Facts) -> list[str]:
    """Say how many scores were measured, and for each model what its perturbations change."""
    entries = [entry for each in facts.evaluations for entry in each.scores]
    gone = sum(entry.score is None for entry in entries)
    found = [
        f"{count_of(len(facts.names), 'model')}: {count_of(len(entries) - gone, 'score')} measured, {gone} missing."
    ]
    for name, result in zip(facts.names, facts.evaluations, strict=True):
        found += [f"{name}. {line}" for line in perturbed.verdict(perturbed.changes(result, facts.seed))]
    return found


def blocks(facts: Facts) -> list[str]:
    """Write the section: how to read it, then for each base task a table of means and one table by language a model."""
    least = {share for each in facts.evaluations if (share := perturbed.least_share(each)) is not None}
    found = {
        name: made
        for name, result in zip(facts.names, facts.evaluations, strict=True)
        if (made := perturbed.changes(result, facts.seed))
    }
    if not found:
        return []
    texts = [
        "## Perturbed texts",
        "A change is the score on perturbed texts minus the score on the same texts unchanged, in percentage points. "
        "The brackets have its 95 % interval by paired bootstrap; texts that languages share are resampled together. "
        "Only the queries are perturbed. A perturbation that changes fewer than "
        f"{max(least):.0%} of the texts of a language {SPARED} there; this is neither 0 nor missing. A score is over "
        "all texts, also over those that the perturbation does not change. Intervals are not corrected for multiple "
        "comparisons: of twenty perturbations without effect, about one shows a change.",
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
    """Make a table with one row a perturbation: its languages, the share of changed texts, each model's mean change."""
    rows = []
    for task in dict.fromkeys(each.task for made in found.values() for each in made):
        same = {name: next((each for each in made if each.task == task), None) for name, made in found.items()}
        first = next(each for each in same.values() if each is not None)
        row = [
            first.perturbation,
            ", ".join(each.language for each in first.languages) or f"{SPARED} in any",
            _share(first),
        ]
        for each in same.values():
            row += ["", "", ""] if each is None or each.change is None else _numbers(each)
        rows.append(row)
    several = len(found) > 1
    header = ["perturbation", "languages", "texts changed"]
    for name in found:
        header += [f"{name}: {words}" if several else words for words in ("unchanged", "perturbed", "change")]
    return table(header, rows, left=2)


def _numbers(each: Change | LanguageChange) -> list[str]:
    return [score_cell(each.clean), score_cell(each.perturbed), _change(each)]


def _change(each: Change | LanguageChange) -> str:
    ends = "" if each.low is None else f" ({score_cell(each.low, '+')} to {score_cell(each.high, '+')})"
    return f"{score_cell(each.change, '+')}{ends}"


def _share(each: Change) -> str:
    known = [(row.changed, row.of) for row in each.languages if row.changed is not None and row.of]
    return f"{sum(one for one, _ in known) / sum(of for _, of in known):.0%}" if known else ""


def _by_language(found: Sequence[Change], name: str) -> str:
    """Make a table of languages and perturbations; perturbations of a single language are in the other table."""
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
    made = table(["language", "unchanged", *(each.perturbation for each in wide)], rows)
    return f"{name}, change in each language:\n\n{made}" if name else made


def _reasons(name: str, found: Sequence[Change]) -> list[str]:
    """Say why changes are missing."""
    why: dict[tuple[str, str], list[str]] = {}
    for each in found:
        for row in each.languages:
            if row.reason:
                why.setdefault((each.perturbation, row.reason), []).append(row.language)
    return [f"- {name}: missing: {words} ({', '.join(codes)}): {reason}" for (words, reason), codes in why.items()]
