"""Statistical power: which differences of two models a number of questions can show."""

from __future__ import annotations

import math

LEVEL = 0.05
POWER_Z = 1.959964 + 0.841621
"""Sum of the normal quantiles for a two-sided test at 5 % with a power of 80 %."""
DISAGREE = 0.2
"""Assumed share of the questions that exactly one of two models has right."""


def fewest_wins(rows: int = 1) -> int:
    """Count the questions that only the better model must have right for p < 0.05, if the other has none of its own.

    The test is McNemar's exact test, two-sided, with Holm's correction over `rows` languages.
    """
    return 1 + math.floor(1 - math.log2(LEVEL / rows))


def _points(value: float) -> str:
    """Write a difference in points; a small one gets a decimal."""
    return f"{value:.0f}" if value >= 3 else f"{value:.1f}"


def reach(n: int, percent: float, languages: int = 1) -> list[str]:
    """Describe what `n` questions can show: the precision of a percentage, and the differences that a test can detect.

    Args:
        n: Number of questions.
        percent: Percentage of them that the model has right.
        languages: Number of rows that the tests are corrected for.

    Returns:
        Sentences.
    """
    share = min(max(percent / 100, 1 / n), 1 - 1 / n) if n > 1 else 0.5
    half = 100 * 1.96 * math.sqrt(share * (1 - share) / n)
    wins = fewest_wins()
    seen = 100 * math.sqrt(POWER_Z**2 * DISAGREE / n)
    most = 100 * DISAGREE
    found = [
        f"{n:,} question{'s' * (n != 1)}: an accuracy near {percent:.0f} % has a 95 % confidence interval of about "
        f"±{_points(half)} points.",
        f"A paired test needs at least {wins} more questions right ({_points(100 * wins / n)} points) to show that one "
        "of two models is better."
        if wins <= n
        else f"A paired test cannot show a difference of two models: it needs at least {wins} questions.",
    ]
    if seen < most:
        words = f"a paired test detects a difference of {_points(seen)} points with a power of 80 %"
    else:
        needed = math.ceil(POWER_Z**2 * DISAGREE / (most / 200) ** 2)
        words = (
            f"a paired test mostly misses a difference of {most / 2:.0f} points; it takes {needed:,} questions for a "
            "power of 80 %"
        )
    found.append(f"If two models disagree on a fifth of the questions, {words}.")
    if languages > 1:
        found.append(
            f"A table tests {languages} languages together: within one language, only the better model must have at "
            f"least {fewest_wins(languages)} questions right."
        )
    return found
