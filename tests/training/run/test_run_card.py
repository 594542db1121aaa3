"""What a run was trained on is counted, said, kept, and told on the card of its model."""

import json
import re
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

import lusifer
from lusifer.cli import main
from lusifer.embedder.identity import identity
from lusifer.errors import UsageError
from lusifer.io.files import write_json
from lusifer.training.folder import RunFolder
from lusifer.training.recipe.load import load_recipe
from lusifer.training.run import card as describe
from lusifer.training.stages import contrastive
from support.tiny_folder import tiny_embedder

BASES = 'name: {name}\nmax_length: 32\nmodel: {{encoder: {{path: "tiny:encoder"}}, llm: {{path: "tiny:llm"}}}}\n'
STAGE = """
  - name: {name}
    kind: contrastive
    train: {{encoder: frozen, connector: true}}
    hard_negatives: 1
    batch_size: 4
    mini_batch_size: 4
    max_steps: 1
    learning_rate: 1.0e-3
    data:
"""


def pairs(file: Path, count: int, **more: object) -> Path:
    """Rows of which every second one has a negative of its own."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"query": f"{file.stem} {n}?", "positive": [f"yes {n}"], "negative": ["no"] * (n % 2), **more}
        for n in range(count)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Three sources: one (named as a method of torch) loses half of its rows, one a whole part, one is Chinese."""
    pairs(tmp_path / "half.jsonl", 10)
    rows = pairs(tmp_path / "v1.0.jsonl", 8, source="kept").read_text()
    lost = json.dumps({"query": "alone?", "positive": ["yes"], "negative": [], "source": "lost"})
    (tmp_path / "v1.0.jsonl").write_text(f"{rows}{lost}\n")
    pairs(tmp_path / "chinese.jsonl", 4)
    file = tmp_path / "small.yaml"
    file.write_text(
        BASES.format(name="small")
        + "stages:"
        + STAGE.format(name="contrast")
        + "      - {path: half.jsonl, in_batch_negatives: false, instruction: Answer it.}\n"
        + "      - {path: v1.0.jsonl, in_batch_negatives: false}\n"
        + "      - {path: chinese.jsonl, language: zh}\n"
    )
    return file


def test_rows_without_a_negative_and_sources_in_another_language_are_counted(recipe: Path) -> None:
    read = load_recipe(recipe)
    said = describe.data(read, read.stages[0], contrastive.examples(read, read.stages[0], 0))
    found = {source["name"]: (source["rows"], source["dropped"]) for source in said["sources"]}
    assert found == {"half": (5, 5), "v1.0/kept": (4, 4), "v1.0/lost": (0, 1)}
    assert said["left_out"] == [{"name": "chinese", "language": "zh"}]
    first = said["sources"][0]
    assert (first["prompt"], first["language"]) == ("Answer it.\n", "en")
    assert first["use"] == "query to document, own negatives only"


def test_two_files_of_one_name_keep_all_their_rows(tmp_path: Path) -> None:
    one, other = pairs(tmp_path / "a" / "x.jsonl", 40, task="retrieval"), pairs(tmp_path / "b" / "x.jsonl", 60)
    with one.open("a") as stream:  # two instructions in one file: it gives two sets
        for number in range(20):
            row = {"query": f"same {number}?", "positive": [f"same {number}"], "negative": [], "task": "sts"}
            stream.write(json.dumps(row) + "\n")
    (tmp_path / "r.yaml").write_text(
        BASES.format(name="r")
        + "stages:"
        + STAGE.format(name="c")
        + f"      - {{path: {one}}}\n      - {{path: {other}}}\n"
    )
    read = load_recipe(tmp_path / "r.yaml")
    rows = contrastive.examples(read, read.stages[0], 0)
    assert sorted(map(len, rows.sets.values())) == [20, 40, 60]


@pytest.mark.slow
def test_training_says_what_it_leaves_out_and_keeps_it(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["train", str(recipe), "--output", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err.splitlines()
    assert "lusifer: contrast: half: 5 rows, 5 more dropped: no negative was found for them" in said
    assert "lusifer: contrast: v1.0/lost: 0 rows, 1 more dropped: no negative was found for them" in said
    assert "lusifer: contrast: chinese: left out: its language is zh, and english_only is set" in said
    kept = json.loads((tmp_path / "run" / "checkpoints" / "01-contrast" / describe.DATA).read_text())
    assert sorted(source["rows"] for source in kept["sources"]) == [0, 4, 5]
    assert str(tmp_path) not in json.dumps(kept)


def front_matter(card: str) -> dict:
    """As the Hub's own library reads it."""
    return ModelCard(card, ignore_metadata_errors=False).data.to_dict()


@pytest.mark.slow
def test_a_run_leaves_cards_that_tell_how_it_went_and_no_path(recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["train", str(recipe), "--output", str(run)]) == 0
    card = (run / "model" / "README.md").read_text(encoding="utf-8")
    between = (run / "checkpoints" / "01-contrast" / "model" / "README.md").read_text(encoding="utf-8")
    apart = "This folder holds what training added. The weights of the encoder and the LLM are not in it"
    assert [line for line in between.splitlines() if line.startswith(apart)]
    assert apart not in card
    assert (run / "delta" / "README.md").read_text(encoding="utf-8") == between
    assert not list(run.glob("checkpoints/*/checkpoint-*/README.md"))
    data = front_matter(card)
    assert (data["language"], data.get("base_model"), data.get("datasets")) == (["en"], None, None)
    for words in (
        "# small\n", "`tiny:encoder`", "seed 0", "InfoNCE", "| half | en | 5 | 5 |", "chinese (zh)", "Not measured",
        "frozen: encoder, LLM", "random weights of toy size",
    ):  # fmt: skip
        assert words in card
    assert not re.search(r"(?<!:)/(tmp|home|root|work|var)\b", card + between)
    assert str(tmp_path) not in card + between and not re.search(r"20\d\d-\d\d", card)

    # What it tells people to type gives vectors with the trained instruction.
    block = re.search(r"```python\n(.*?)```", card, flags=re.DOTALL)[1]
    typed: dict = {}
    exec(block.replace("DIR", str(run / "model")), typed)
    loaded = lusifer.load(run / "model", device="cpu")
    assert typed["queries"].shape == (1, 48)
    wanted = loaded.encode(["Where is the station?"], prompt="Answer it.\n")
    assert abs(typed["queries"] - wanted).max() < 1e-6

    # A run that goes on writes the same card: nothing in it is from the moment of writing.
    shutil.rmtree(run / "model")
    shutil.rmtree(run / "checkpoints" / "01-contrast" / "model")
    assert main(["train", str(recipe), "--output", str(run), "--resume"]) == 0
    assert (run / "model" / "README.md").read_text(encoding="utf-8") == card
    before = identity(run / "model")
    (run / "model" / "README.md").unlink()
    assert identity(run / "model") == before


def test_bases_and_data_of_the_hub_are_named_for_the_hub(bases_folder: tuple[Path, Path], tmp_path: Path) -> None:
    recipe = load_recipe("paper-mistral", ["english_only=false"], variant="published-lists")
    with RunFolder.start(tmp_path / "run", recipe, resume=False) as run:
        pass
    embedder = tiny_embedder(bases_folder)
    data = front_matter(describe.card(run, 4, embedder))
    assert data["base_model"] == ["FacebookAI/xlm-roberta-large", "mistralai/Mistral-7B-Instruct-v0.3"]
    assert data["base_model_relation"] == "finetune"
    assert data["language"] == ["en", "zh"]
    assert "Hieuman/wikitext-103-filtered" in data["datasets"] and len(set(data["datasets"])) == len(data["datasets"])
    first = describe.card(run, 1, embedder)
    assert "nothing has trained the vectors yet" in first
    assert "paper-mistral-published-lists, after stage alignment-reconstruction" in first
    assert "1 epochs, 256 rows per step" in first  # the rows were not counted: no number is made up


def test_a_language_that_nobody_stated_is_not_english(
    bases_folder: tuple[Path, Path], recipe: Path, tmp_path: Path
) -> None:
    words, embedder = "Languages of the training text, according to the recipe: ", tiny_embedder(bases_folder)
    stated = [f"stages.contrast.data.{number}.language=de" for number in (0, 1)]
    for number, (more, said) in enumerate(((stated, "de, zh."), (stated[:1], "de, zh, not stated."))):
        read = load_recipe(recipe, ["english_only=false", "stages.contrast.batch_size=2", *more])
        with RunFolder.start(tmp_path / str(number), read, resume=False) as run:
            found = describe.data(read, read.stages[0], contrastive.examples(read, read.stages[0], 0))
            write_json(run.stage(1, "contrast") / describe.DATA, found)
        card = describe.card(run, 1, embedder)
        assert f"{words}{said}\n" in card and front_matter(card)["language"] == ["de", "zh"]
        assert "text is English" not in card and ("| v1.0/kept | not stated | 4 |" in card) == (len(more) == 1)
    for changes, language in (([], "en"), (["english_only=false"], None)):
        read = load_recipe(recipe, changes)
        assert read.language(read.stages[0].data[0]) == language
    read = load_recipe("finetune")
    assert read.language(read.stages[0].data[0]) == "en"  # the sample in the package


def test_local_bases_are_named_by_their_last_name(
    bases_folder: tuple[Path, Path], recipe: Path, tmp_path: Path
) -> None:
    encoder, llm = bases_folder
    changes = [f"model.encoder.path={encoder}", f"model.llm.path={llm}"]
    with RunFolder.start(tmp_path / "run", load_recipe(recipe, changes), resume=False) as run:
        pass
    card = describe.card(run, 1, tiny_embedder(bases_folder))
    assert "`encoder` (xlm-roberta)" in card and str(encoder.parent) not in card
    assert front_matter(card).get("base_model") is None


def test_what_a_contrastive_stage_keeps_to_is_on_the_card(
    bases_folder: tuple[Path, Path], recipe: Path, tmp_path: Path
) -> None:
    changes = ["stages.contrast.distill=2", "stages.contrast.distill_contrast=0.5"]
    with RunFolder.start(tmp_path / "run", load_recipe(recipe, changes), resume=False) as run:
        pass
    told = describe.card(run, 1, tiny_embedder(bases_folder))
    assert "own vectors, weight 2, contrast with the other texts 0.5\n" in told
    with RunFolder.start(tmp_path / "other", load_recipe(recipe), resume=False) as run:
        pass
    assert "distill" not in describe.card(run, 1, tiny_embedder(bases_folder))


def test_what_the_encoder_does_not_get_to_read_is_on_the_card(bases_folder: tuple[Path, Path], tmp_path: Path) -> None:
    changes = ["stages.alignment.token_dropout=0.2", "stages.alignment.distill_contrast=0.1"]
    recipe = load_recipe("mini", changes, check_files=False)
    with RunFolder.start(tmp_path / "run", recipe, resume=False) as run:
        pass
    told = describe.card(run, 1, tiny_embedder(bases_folder))
    assert "\n- distill's contrast with the other texts: weight 0.1\n" in told
    assert "\n- tokens dropped from the input of the encoder: up to 20% of a text\n" in told


def test_two_instructions_that_would_be_saved_under_one_name_are_refused(recipe: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run", load_recipe(recipe))
    folder = run.stage(1, run.recipe.stages[0].name)
    folder.mkdir(parents=True)
    sources = [
        {"rows": 2, "prompt": "Find news\n", "use": describe.ONE_KIND},
        {"rows": 2, "prompt": "Find news-document\n", "use": "query to document"},
    ]
    for found, names in ((sources[:1], {"Find news", "Find news-document"}), (sources[1:], {"Find news-document"})):
        (folder / "data.json").write_text(json.dumps({"sources": found}))
        assert describe.prompts(run, 1).keys() == names
    (folder / "data.json").write_text(json.dumps({"sources": sources}))
    with pytest.raises(
        UsageError, match="'Find news-document' has the name under which the prompt for documents of 'Find news'"
    ):
        describe.prompts(run, 1)
