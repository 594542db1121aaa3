"""Statistics made by hand: few vectors, in two languages, whose cosines can be done in the head."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lusifer.calibration.fit import Parties, fit
from lusifer.calibration.statistics import LanguageStatistics

ASKED = Parties("mine", "0123456789ab", "0123456789ab", "", "")
ENGLISH = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
SWAHILI = np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 1.0]])


@pytest.fixture
def statistics() -> LanguageStatistics:
    """Of three sentences in English and Swahili, by one model for questions and documents."""
    vectors = {"en": ENGLISH, "sw": SWAHILI}
    return fit(vectors, vectors, ASKED, "by hand")


@pytest.fixture
def others(statistics: LanguageStatistics) -> LanguageStatistics:
    """The same numbers of another model."""
    return replace(statistics, model="other", identity="f" * 12, documents="f" * 12)
