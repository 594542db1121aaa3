"""A user's model among the public ones: places by hand, what is not compared, and what the command prints."""

import json
from dataclasses import replace

import pytest

from lusifer.cli import main
from lusifer.evaluation.public.standing import Place, standings
from lusifer.evaluation.public.table import PublicRun, PublicTable, table
from lusifer.evaluation.scores.results import Model, Results, read
from lusifer.evaluation.suites import benchmark
from support import example_evaluations, score_folders
from support.score_folders import entry

RUN = PublicRun("1", "data", "2.3.0")
FACTS = table().facts
TINY = PublicTable(
    ("o/good", "o/bad", "o/few"),
    {
        ("X", "dev", "en"): {"o/good": 90.0, "o/bad": 40.0, "o/few": 99.0},
        ("X", "dev", "sw"): {"o/good": 70.0, "o/bad": 20.0},
        ("Y", "dev", "en"): {"o/good": 50.0, "o/bad": 60.0},
        ("R", "dev", "en"): {"o/good": 80.0},
    },
    {("o/good", "X"): RUN, ("o/bad", "X"): RUN, ("o/few", "X"): RUN, ("o/good", "Y"): replace(RUN, dataset_revision=""),
     ("o/bad", "Y"): PublicRun("external", "older", ""), ("o/good", "R"): replace(RUN, mteb_version="1.12.75")},
    FACTS,
)  # fmt: skip


def mine(*entries, **more):
    return Results("paper", Model("mine"), entries, versions={"mteb": "2.26.24"}, **more)


MINE = mine(
    entry("en", "X", 60.0),
    entry("en", "Y", 55.0, type="STS"),
    entry("sw", "X", 80.0),
    entry("te", "X", 50.0),
    entry("te", "Y", None, type="STS"),
    entry("en", "R", 70.0, type="Reranking", metric="map_at_1000"),
)


def test_places_by_hand():
    (found,) = standings(MINE, TINY)
    # Two public models have en X, en Y and sw X: mine (57.5 + 80) / 2, good (70 + 70) / 2, bad (50 + 20) / 2.
    assert found.whole.order == (("o/good", 70.0), ("mine", 68.75), ("o/bad", 35.0))
    assert (found.whole.rank, found.whole.of, found.whole.rows, found.whole.measured) == (2, 3, 3, 5)
    assert (found.whole.mean, found.whole.best) == (68.75, ("o/good", 70.0))
    lines = {place.label: (place.rank, place.of, place.rows, place.measured, place.mean) for place in found.languages}
    # English: good, bad and mine share 2 of 3 rows (6 scores); with "few" they are four over one (4 scores).
    assert lines == {"en": (2, 3, 2, 3, 57.5), "sw": (1, 3, 1, 1, 80.0)}
    types = {place.label: (place.rank, place.of, place.rows, place.measured) for place in found.types}
    # Classification: mine (60 + 80) / 2 among 3 over 2 rows (6 scores), not among 4 over 1; STS: bad 60, mine 55.
    assert types == {"Classification": (2, 3, 2, 3), "STS": (2, 3, 1, 1)}
    assert found.alone == ("te", "Reranking")
    assert found.model == "mine" and "CC0" in found.source


def test_the_interval_of_the_mean_reaches_over_ranks():
    order = (("o/good", 70.0), ("mine", 65.0), ("o/bad", 60.0))
    place = Place("sw", 2, 1, 1, order, "mine")
    assert place.reach is None
    assert replace(place, low=58.0, high=72.0).reach == (1, 3)
    assert replace(place, low=60.0, high=70.0).reach == (1, 2)  # an equal mean shares the better rank
    assert replace(place, low=64.0, high=66.0).reach == (2, 2)


def test_a_mean_with_examples_has_an_interval():
    rows = score_folders.right(1, 1, 0, 1, 0, 1, 1, 0, 1, 1)
    made = score_folders.results("mine", {("en", "X"): rows}, entry("en", "Y", 55.0))
    (found,) = standings(made, TINY)
    places = {place.label: place for place in (found.whole, *found.types)}
    assert places["all"].low is None  # a row of it has no examples
    assert len(standings(replace(made, scores=made.scores[:1]), TINY)[0].whole.order) == 4
    whole = standings(replace(made, scores=made.scores[:1]), TINY)[0].whole
    assert whole.mean == 70.0 and whole.low < 70.0 < whole.high and whole.reach[0] < whole.reach[1]


def test_what_differs_is_said(tmp_path):
    folder = score_folders.write(tmp_path / "mine", replace(MINE, examples={}))
    results = folder / "results" / "o" / "1"
    results.mkdir(parents=True)
    for task, revision in (("X", "data-of-40-digits"), ("Y", "newer")):
        name = {"task_name": task, "dataset_revision": revision, "scores": {}}
        (results / f"{task}.json").write_text(json.dumps(name))
    (results / "model_meta.json").write_text('{"name": "o"}')
    (results / "broken.json").write_text("{")
    made = replace(read(folder), versions={"mteb": "2.26.24"})
    (found,) = standings(made, TINY)
    assert found.notes == (
        "Not compared, metric map against map_at_1000: R.",
        "Of 4 public scores of a model on a task, 3 used another revision of the data; for 1 it is unknown.",
        "Of the 4 public scores of a model on a task, 1 are from mteb 1 or name no version; mine was evaluated with "
        "mteb 2.26.24.",
        "1 of them are from the model's own card.",
    )


def test_where_nothing_is_shared_there_is_no_place(tmp_path):
    assert standings(mine(entry("en", "SIB200ZeroShotTopics", 50.0)), TINY) == []
    assert standings(mine(entry("en", "X", None)), TINY) == []
    assert standings(mine(entry("en", "X", 50.0, split="test")), TINY) == []
    assert standings(mine(entry("en", "R", 50.0, type="Reranking", metric="map_at_1000")), TINY) == []
    assert standings(read(example_evaluations.write(tmp_path / "offline", tasks=["Topics"]))) == []


def test_pairs_of_languages_are_apart_and_by_task():
    pair = dict(cross_lingual=True, subsets=("es-en",), split="dev")
    public = replace(
        TINY, scores={**TINY.scores, ("C", "dev", "es-en"): {"o/good": 10.0}}, runs={**TINY.runs, ("o/good", "C"): RUN}
    )
    own, cross = standings(mine(entry("en", "X", 60.0), entry("es", "C", 20.0, **pair)), public)
    assert [place.label for place in own.languages] == ["en"]
    assert [(place.label, place.rank, place.of) for place in cross.languages] == [("C", 1, 2)]


def test_a_public_model_stands_where_its_public_scores_put_it(tmp_path):
    """Two ways to the same place: an evaluation with a public model's own scores shares its mean and rank."""
    public, name = table(), "intfloat/multilingual-e5-base"
    theirs = public.results(name, benchmark.suite("quick"), "quick")
    (found,) = standings(replace(theirs, versions={"mteb": "1.12.75"}), public)
    assert found.model == f"{name} (yours)"
    places = [place for place in (found.whole, *found.languages, *found.types) if name in dict(place.order)]
    assert len(places) > 10 and all(dict(place.order)[name] == place.mean for place in places)
    assert found.whole.rows <= found.whole.measured <= len(theirs.scores)


@pytest.fixture
def folder(tmp_path):
    """An evaluation of three rows that are public."""
    rows = [row for row in benchmark.suite("paper") if row.task == "MassiveIntentClassification"][:3]
    scores = tuple(
        entry(row.language, row.task, 95.0 - place, type=row.type, metric=row.metric, split=row.split,
              subsets=row.subsets)
        for place, row in enumerate(rows)
    )  # fmt: skip
    return score_folders.write(tmp_path / "mine", Results("paper", Model("mine"), scores))


def test_the_command_prints_a_table_with_its_rows_and_source(capsys):
    assert main(["public", "--languages", "swh_Latn", "--models", "harrier,e5-mistral"]) == 0
    said = capsys.readouterr().out
    assert "harrier-oss-v1-0.6b" in said and "e5-mistral-7b-instruct" in said and "Qwen" not in said
    assert "3 models, compared over the 6 of 8 rows that all of them have." in said
    assert said.endswith("more scores may be public.\n") and "f4cc6c8b365a" in said
    assert main(["public", "--languages", "sw", "--types", "Classification", "--by", "task", "--markdown"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("### Public scores") and "| model | rank | all | " in said and "Not compared" in said


def test_the_command_places_a_model(folder, capsys):
    assert main(["public", "--against", str(folder), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["places"][0]["all"]["rank"] == 1 and said["tables"][0]["models"][0]["model"] == "mine"
    assert said["tables"][0]["models"][0]["mean"] == 94.0
    assert main(["public", "--against", str(folder), "--models", "LaBSE"]) == 0
    assert "mine among the public models" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--models", "gpt"], "--models 'gpt': no public model has this in its name: use some of intfloat/"),
        (["--languages", "de"], "language 'de' is not in these rows: use some of "),
        (["--types", "Sts"], "type 'Sts' is not in these rows: use some of "),
        (["--languages", "sw", "--tasks", "STS17"], "no row has this language, type and task"),
        (["--suite", "offline"], "suite 'offline' is unknown: use one of paper"),
        (["--suite", "quick", "--against", "{}"], "--suite: not with --against, which takes the rows"),
        (["--tasks", "XNLIV2"], "no score of these rows is public: choose other"),
        (
            ["--against", "{}", "--models", "gte-multi", "--tasks", "MassiveIntentClassification"],
            "no score of its rows",
        ),
        (["--markdown", "--json"], "--markdown and --json: give one of them"),
        (["--against", "nowhere"], "nowhere/summary.json: no such file"),
    ],
)
def test_what_cannot_be_shown_is_said(folder, words, message, capsys):
    assert main(["public", *(word.format(folder) for word in words)]) in (1, 2)
    assert message in capsys.readouterr().err
