"""The verdict of a report: the results in a few sentences, computed from the numbers alone."""

from __future__ import annotations

from collections.abc import Sequence

from lusifer.evaluation.report import facts as report_facts
from lusifer.evaluation.report.facts import Facts, ScoreSet
from lusifer.evaluation.report.words import count_of, language_name, mean_cell
from lusifer.evaluation.scores.compare import BETTER, NOISE, WORSE
from lusifer.evaluation.scores.questions import QuestionReport

GOOD, POOR = 80, 50  # percent; a language between the two counts as neither
NAMED = 3  # a sentence names at most this number of tasks and languages and counts the others


def sentences(facts: Facts) -> list[str]:
    """Say how many scores there are, their means, the significant differences, and the test texts seen in training."""
    entries = [entry for scores in facts.sets for board in scores.boards for entry in board.entries.values()]
    there = sum(entry.score is not None for entry in entries)
    tasks, codes = {entry.task for entry in entries}, {entry.language for entry in entries}
    found = [
        f"{count_of(len(facts.names), 'model')}, {count_of(len(tasks), 'task')}, {count_of(len(codes), 'language')}: "
        f"{count_of(there, 'score')} measured, {len(entries) - there or 'none'} missing."
    ]
    for scores in facts.sets:
        found += [_means(scores), *_differences(facts, scores), *_best_and_weakest(scores), *_spread(scores)]
    found += _english_lead(facts.own) if facts.own is not None else []
    return found + [_seen(facts, model) for model in range(len(facts.names))]


def of_questions(facts: Facts, reports: Sequence[QuestionReport]) -> list[str]:
    """Say how often each model finds the needed documents, by language, and which differences are significant.

    Args:
        facts: The facts of the suite `mine`.
        reports: The details of search results.
    """
    found = []
    for each in reports:
        rows = sorted(each.languages, key=lambda row: -(row.first.value or 0))
        parts = [f"{language_name(row.language)} {mean_cell(row.first)}" for row in rows]
        found.append(
            f"{each.name}, {count_of(sum(row.n for row in rows), 'question')}: percentage for which the first document "
            f"is a needed one, with its 95 % confidence interval: {', '.join(parts)}."
        )
        bias = [row for row in rows if row.own and row.chance is not None and (row.own.low or 0) > row.chance]
        if bias:
            names = ", ".join(language_name(row.language) for row in bias)
            found.append(
                f"{each.name}: wrong documents are in the question's own language more often than by chance: {names}."
            )
        told = [row for row in each.controls if row.auc.low is not None]
        if told:
            words = ", ".join(f"{language_name(row.language)} {mean_cell(row.auc)}" for row in told)
            found.append(
                f"{each.name}: the cosine is higher for questions with an answer than for those without in {words} "
                "percent of the pairs (AUC; 50 is chance)."
            )
    # Readers need the statistical power before the differences.
    found += dict.fromkeys(line for each in reports for line in each.reach[:2])
    for scores in facts.sets:
        other = "another" if scores.cross_lingual else "their own"
        found += _differences(facts, scores, f"Questions for documents in {other} language")
    return found + [_seen(facts, model) for model in range(len(facts.names))]


def _means(scores: ScoreSet) -> str:
    kind, whole = scores.kind.capitalize(), scores.whole
    if not whole.shared:
        there = any(entry.score is not None for board in scores.boards for entry in board.entries.values())
        why = "the models share no result, so no mean can be compared" if there else "nothing could be measured"
        return f"{kind}: {why}."
    means = [
        f"{name} {mean_cell(mean, '95 % interval ')}" for name, mean in zip(scores.names, whole.means, strict=True)
    ]
    which = ""
    if len(means) > 1:
        every = all(mean.value is not None for mean in whole.means)
        which = " that all models have" if every else " that the models with results have"
    return f"{kind}, mean over the {count_of(whole.shared, 'result')}{which}: {'; '.join(means)}."


def _differences(facts: Facts, scores: ScoreSet, kind: str | None = None) -> list[str]:
    """Say how often the first model is significantly better or worse, over all tasks."""
    found = []
    for name in facts.names[1:]:
        mine = [c for c in facts.comparisons if c.names[1] == name and c.cross_lingual == scores.cross_lingual]
        better, worse, noise, apart = (sum(len(c.languages(v)) for c in mine) for v in (BETTER, WORSE, NOISE, None))
        compared = better + worse + noise
        against = f"{kind or scores.kind.capitalize()}, {facts.names[0]} against {name}"
        if not compared:
            found.append(f"{against}: no result is comparable example by example.")
            continue
        # The mean over many languages may differ significantly even if no single language does.
        means = [c for c in mine if c.low is not None and c.high is not None]
        above, below = sum(c.low > 0 for c in means), sum(c.high < 0 for c in means)
        found.append(
            f"{against}: of {count_of(compared, 'result')} on the same examples (paired tests), {better} are "
            f"significantly better, {worse} significantly worse, {noise} not significant; {apart} are not comparable. "
            f"The 95 % interval of a task's mean difference is above 0 in {above} of {count_of(len(means), 'task')}, "
            f"and below 0 in {below}."
        )
    return found


def _best_and_weakest(scores: ScoreSet) -> list[str]:
    """Name the best and the weakest language of each model, over the tasks that all languages have."""
    keys = report_facts.in_all_languages(scores)
    if len({task for _, task in keys}) != 1:
        return []  # a mean over several tasks would not show in which language any of them is good
    codes = list(dict.fromkeys(code for code, _ in keys))
    found = []
    for name, board in zip(scores.names, scores.boards, strict=True):
        means = [(board.mean([key for key in keys if key[0] == code]), code) for code in codes]
        known = [(mean.value, code) for mean, code in means if mean.value is not None and mean.complete]
        if len(known) == len(codes) > 1:
            best, weakest = (f"{language_name(code)} ({value:.1f})" for value, code in (max(known), min(known)))
            found.append(f"{name} is best in {best} and weakest in {weakest}")
    tasks = count_of(len({task for _, task in keys}), "task")
    return [f"{scores.kind.capitalize()}, in the {tasks} that all languages have: {'; '.join(found)}."] if found else []


def _spread(scores: ScoreSet) -> list[str]:
    """Count the languages with good and with poor scores, task by task, if there are many languages."""
    found = []
    for task in scores.everywhere if scores.many else ():
        parts = []
        for name, board in zip(scores.names, scores.boards, strict=True):
            there = [entry.score for (_, each), entry in board.entries.items() if each == task]
            values = [value for value in there if value is not None]
            good, poor = (sum(value >= bound for value in values) for bound in (GOOD, POOR))
            gone = f", missing in {len(there) - len(values)}" if len(values) < len(there) else ""
            parts.append(f"{name} at least {GOOD} in {good}, under {POOR} in {len(values) - poor}{gone}")
        title = next(scores.about(key).title for key in scores.keys if key[1] == task)
        found.append(f"{title}, of {len(there)} languages: {'; '.join(parts)}.")
    return found


def _english_lead(scores: ScoreSet) -> list[str]:
    """Say how far English is ahead of the other languages."""
    means, languages, tasks = report_facts.english_lead(scores)
    parts = [
        f"{abs(english - others):.1f} points {'ahead' if english >= others else 'behind'} in {name} "
        f"({english:.1f} against {others:.1f})"
        for name, (english, others) in means.items()
    ]
    against = f"English against the mean of {count_of(languages, 'other language')}"
    return [f"{against}, over {count_of(tasks, 'task')} of monolingual results: {'; '.join(parts)}."] if parts else []


def _seen(facts: Facts, model: int) -> str:
    """Say how many test texts were in the training data of a model."""
    name, found = facts.names[model], facts.seen(model)
    known = {key: seen for key, seen in found.items() if seen is not None}
    if not known:
        return f"{name}: it is not known whether training has seen the test texts."
    seen, of = sum(each.seen for each in known.values()), sum(each.of for each in known.values())
    where = [f"{task} in {code}" for (code, task), each in known.items() if each.seen]
    more = f" and {len(where) - NAMED} more" if len(where) > NAMED else ""
    named = f" ({', '.join(where[:NAMED])}{more})" if where else ""
    rest = f"; not known for {len(found) - len(known)} of {len(found)} results" if len(known) < len(found) else ""
    return f"{name}: training has seen {seen:,} of {of:,} test texts, counted for each task and language{named}{rest}."
