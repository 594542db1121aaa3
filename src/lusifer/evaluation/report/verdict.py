"""The verdict of a report: a few sentences that follow from the numbers and from nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from lusifer.evaluation.report import facts as report_facts
from lusifer.evaluation.report import tables as cells
from lusifer.evaluation.report.facts import Facts, Part
from lusifer.evaluation.report.tables import count_of
from lusifer.evaluation.scores.averages import Mean
from lusifer.evaluation.scores.compare import BETTER, NOISE, WORSE

NAMED = 3  # places that a sentence names before it counts the rest


def sentences(facts: Facts) -> list[str]:
    """Say what was found.

    Args:
        facts: The evaluations.

    Returns:
        Sentences: how many results there are; of the monolingual ones and then of the cross-lingual ones the means,
        what differs beyond chance, the best and the weakest language; how far English is ahead; what training has
        seen.
    """
    said = [_counts(facts)]
    for part in facts.parts:
        said += _means(part) + _differences(facts, part) + _ends(part)
    if facts.own is not None:
        said += _distances(facts.own)
    return said + _training(facts)


def _counts(facts: Facts) -> str:
    every = [entry for part in facts.parts for board in part.boards for entry in board.entries.values()]
    there = sum(entry.score is not None for entry in every)
    tasks, spoken = {entry.task for entry in every}, {entry.language for entry in every}
    return (
        f"{count_of(len(facts.names), 'model')}, {count_of(len(tasks), 'task')}, {count_of(len(spoken), 'language')}: "
        f"{count_of(there, 'score')} measured, {len(every) - there or 'none'} missing."
    )


def _differences(facts: Facts, part: Part) -> list[str]:
    """How often the first model is better or worse beyond chance, over all tasks."""
    said = []
    for name in facts.names[1:]:
        mine = [
            each for each in facts.comparisons if each.names[1] == name and each.cross_lingual == part.cross_lingual
        ]
        better, worse, noise, apart = (
            sum(len(each.languages(verdict)) for each in mine) for verdict in (BETTER, WORSE, NOISE, None)
        )
        if better + worse + noise == 0:
            said.append(f"{_kind(part)}, {facts.names[0]} against {name}: no result is comparable example by example.")
            continue
        # Many languages that are each within noise may differ clearly in their mean.
        means = [each for each in mine if each.low is not None and each.high is not None]
        above, below = sum(each.low > 0 for each in means), sum(each.high < 0 for each in means)
        said.append(
            f"{_kind(part)}, {facts.names[0]} against {name}: of {count_of(better + worse + noise, 'result')} on the "
            f"same examples, better beyond chance in {better}, worse in {worse}, within noise in {noise}; not "
            f"comparable in {apart}. By the mean difference over a task's languages, whose 95 % interval then excludes "
            f"0, better in {above} of {count_of(len(means), 'task')}, worse in {below}."
        )
    return said


def _kind(part: Part) -> str:
    return "Cross-lingual" if part.cross_lingual else "Monolingual"


def _means(part: Part) -> list[str]:
    whole = part.row("", part.keys)
    if not whole.shared:
        there = any(entry.score is not None for board in part.boards for entry in board.entries.values())
        why = "the models share no result, so there is no mean to compare" if there else "nothing could be measured"
        return [f"{_kind(part)}: {why}."]
    told = [f"{name} {_mean(mean)}" for name, mean in zip(part.names, whole.means, strict=True)]
    which = (
        ""
        if len(part.names) == 1
        else " that all models have"
        if all(m.value is not None for m in whole.means)
        else (" that the models with results have")
    )
    return [f"{_kind(part)}, mean over the {count_of(whole.shared, 'result')}{which}: {'; '.join(told)}."]


def _ends(part: Part) -> list[str]:
    """The best and the weakest language of each model, over the tasks that all languages have."""
    keys = report_facts.in_all_languages(part)
    codes = list(dict.fromkeys(code for code, _ in keys))
    if len(codes) < 2:
        return []
    told = []
    for name, board in zip(part.names, part.boards, strict=True):
        means = [board.mean([key for key in keys if key[0] == code]) for code in codes]
        known = [(mean.value, code) for mean, code in zip(means, codes, strict=True) if mean.value is not None]
        if len(known) == len(codes) and all(mean.complete for mean in means):
            best, worst = (f"{cells.name_of(code)} ({value:.1f})" for value, code in (max(known), min(known)))
            told.append(f"{name} is best in {best} and weakest in {worst}")
    tasks = count_of(len({task for _, task in keys}), "task")
    return [f"{_kind(part)}, in the {tasks} that all languages have: {'; '.join(told)}."] if told else []


def _distances(part: Part) -> list[str]:
    """How far English is ahead."""
    found = report_facts.distances(part)
    if not found:
        return []
    told = []
    for name, each in found.items():
        points = each.english - each.others
        words = f"{abs(points):.1f} points {'ahead' if points >= 0 else 'behind'} in {name}"
        told.append(f"{words} ({each.english:.1f} against {each.others:.1f})")
    one = next(iter(found.values()))
    return [
        f"English against the mean of {count_of(one.languages, 'other language')}, over {count_of(one.tasks, 'task')} "
        f"of monolingual results: {'; '.join(told)}."
    ]


def _training(facts: Facts) -> list[str]:
    return [_seen(name, facts.met(model)) for model, name in enumerate(facts.names)]


def _seen(name: str, met: Sequence[report_facts.Met]) -> str:
    known = [each.seen for each in met if each.seen is not None]
    if not known:
        return f"{name}: whether its training has seen the test texts is not known."
    seen, of = sum(each.seen for each in known), sum(each.of for each in known)
    where = [f"{each.task} in {each.language}" for each in met if each.seen is not None and each.seen.seen]
    more = f" and {len(where) - NAMED} more" if len(where) > NAMED else ""
    named = f" ({', '.join(where[:NAMED])}{more})" if where else ""
    rest = f"; not known for {len(met) - len(known)} of {len(met)} results" if len(known) < len(met) else ""
    return f"{name}: training has seen {seen:,} of {of:,} test texts, counted for each task and language{named}{rest}."


def _mean(mean: Mean) -> str:
    if mean.value is None:
        return cells.MISSING
    ends = "" if mean.low is None else f" (95 % interval {cells.score_cell(mean.low)} to {cells.score_cell(mean.high)})"
    return f"{cells.score_cell(mean.value)}{ends}"
