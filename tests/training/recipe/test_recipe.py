"""Recipes: what is read, what is refused and with which words, what comes back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lusifer.errors import RecipeError, UsageError
from lusifer.training.objectives import OBJECTIVES, register
from lusifer.training.objectives.language_model import Reconstruction
from lusifer.training.recipe import start
from lusifer.training.recipe.document import Document, write
from lusifer.training.recipe.load import load_recipe, resolved_yaml
from lusifer.training.recipe.recipe import Recipe
from support.training import RECIPE

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def edited(file: Path, old: str, new: str) -> Path:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    return file


def refusal(path: Path | str, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, UsageError) and caught.value.status == 2
    return str(caught.value)


def test_misspelt_key_names_file_line_key_and_neighbour(file: Path) -> None:
    edited(file, "    learning_rate: 1e-4", "    learning_rat: 1e-4")
    message = refusal(file)
    assert message.startswith(f"{file} line 13: stages.first.learning_rat: unknown key; did you mean learning_rate?")


@pytest.mark.parametrize(("given", "mini"), [("batch_size=2", 2), ("mini_batch_size=512", 8), ("mini_batch_size=8", 8)])
def test_a_mini_batch_has_no_more_rows_than_a_batch(file: Path, given: str, mini: int) -> None:
    recipe = load_recipe(file, [f"stages.first.{given}"])
    assert recipe.stages[0].mini_batch_size == mini and f"mini_batch_size: {mini}\n" in resolved_yaml(recipe)


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("batch_size: 8", "batch_size: eight", 10, "batch_size: input should be a valid integer, found 'eight'"),
        ("batch_size: 8", "batch_size: true", 10, "valid integer, found True"),
        ("batch_size: 8", "batch_size: 6", 10, "batch_size 6 is not a multiple of mini_batch_size 4"),
        ("    train: {encoder: lora}\n", "", 6, "stages.first.train: is missing"),
        ("kind: alignment", "kind: align", 7, "kind must be one of 'alignment', 'contrastive', found align"),
        ("{distill: 1}", "{distill: 0}", 9, "the weights add up to 0"),
        ("{distill: 1}", "{completion: 1}", 9, "completion needs paired data"),
        ("{distill: 1}", "{distill: .inf}", 9, "finite"),
        ("name: second", "name: first", 5, "the name 'first' is used twice"),
        ("  - name: first\n    kind: alignment\n", "  - kind: alignment\n    sze: 1\n", 7, "stages.0.sze: unknown"),
        ("train: {encoder: lora}", "train: {encoder: lora, llm: lora}", 8, "set it to frozen"),
        ("train: {encoder: frozen, llm: lora}", "train: {encoder: frozen, connector: false}", 18, "is frozen"),
        ("epochs: 2", "epochs: 2\n    max_steps: 4", 22, "remove one, as with --set stages.second.epochs=null"),
        ("    epochs: 2\n", "", 16, "either max_steps or epochs"),
        ("    epochs: 2\n", "    epochs: 2\n    hard_negatives: 0\n    loss: ntxent_l2\n    matryoshka_dims: [8]\n", 24,
         "works with loss: infonce only"),
        ('{path: "sample:pairs"}', '{path: "sample:pairs", weight: 1e308}', 24, "less than or equal to 10000"),
        ('{path: "sample:pairs"}', '{path: "sample:pairs", hub: a/b}', 24, "either path (a local file) or hub"),
        ('{path: "sample:pairs"}', "{path: nowhere.jsonl}", 24, "nowhere.jsonl: no such file"),
        ('{path: "sample:pairs"}', "{hub: Hieuman/MSMarco, language: zh}", 23, "english_only leaves no source"),
        ('{path: "sample:passages"}', "{hub: Hieuman/imdb}", 15, "role is needed for Hieuman/imdb"),
        ('{path: "tiny:llm"}', "{path: package:no_such_package_here}", 4, "is not installed: correct the name"),
        ('{path: "tiny:llm"}', "{path: ./nowhere}", 4, "no model folder at"),
        ('{path: "tiny:llm"}', '{path: "not a name"}', 4, "neither a folder nor a Hub id"),
        ("name: small", "name: small\nname: again", 2, 'duplicate key "name"'),
        ("name: small", "name: [", 3, "not valid YAML"),
    ],
)  # fmt: skip
def test_wrong_recipe_is_refused_where_it_is_wrong(file: Path, old: str, new: str, line: int, words: str) -> None:
    message = refusal(edited(file, old, new))
    assert words in message
    assert message.startswith(f"{file} line {line}: ")


def test_a_base_that_is_not_there_is_refused_with_what_to_do(file: Path) -> None:
    edited(file, '{path: "tiny:encoder"}', '{path: "./a #1"}  # make_it.py makes it')
    wanted = "(no config.json): correct the path, or give another one: --set model.encoder.path=FOLDER"
    assert refusal(file).endswith(f"no model folder at {file.parent}/a #1 {wanted}")
    assert f"/b {wanted}" in refusal(file, "model.encoder.path=./b")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("stages.0.max_stps=1", "stages.first.max_stps: unknown key; did you mean max_steps?"),
        ("stages.secnd.epochs=1", "no such item: did you mean second?"),
        ("stages.7.epochs=1", "no such item"),
        ("stages.first.max_steps=abc", ": stages.first.max_steps: input should be a valid integer"),
        ("stages.1.epochs=abc", ": stages.second.epochs: input should be a valid"),
        ("stages.first.data.4.path=x", ": stages.first.data.4: no such item"),
        ("sed=1", "unknown key; did you mean seed?"),
        ("seed", "expected key.path=value"),
        ("seed=-1", "--set seed=-1: seed: input should be greater than or equal to 0"),
        ("seed.x=1", "seed: input should be a valid integer, found {'x': 1}"),
        ("model.connector=ff", "model.connector: expected a mapping such as {type: ff}, found 'ff'"),
        ("model.connector.type=latent_atention", "unknown connector 'latent_atention': did you mean latent_attention?"),
        ("model.connector.factor=2", "model.connector.factor: unknown key"),
        ("model.pooling=[", "not valid YAML"),
        ("stages.second.lora.encoder.r=4", "lora.encoder is given, but train.encoder is frozen"),
        ("stages.first.train.output_projection=yes", "valid boolean, found 'yes'"),
        ("stages.first.attention=bidirectional", "has no effect with distill alone"),
        ("stages.first.token_dropout=1.0", "token_dropout"),
        ("stages.first.max_length=1024", "above the recipe's max_length"),
    ],
)
def test_wrong_override_is_refused_by_name(file: Path, override: str, words: str) -> None:
    message = refusal(file, override)
    assert words in message
    assert message.startswith(f"--set {override}") or "stages.first.max_length" in message


def test_a_recipe_of_an_earlier_version_is_read(file: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.yaml"
    old.write_text(
        resolved_yaml(load_recipe(file)).replace(
            "pooling: mean", "pooling: mean\n  include_prompt: true\n  residual: false"
        )
    )
    assert "include_prompt" in old.read_text()
    assert load_recipe(old) == load_recipe(file)
    assert "include_prompt: the prompt is always part of the mean" in refusal(file, "model.include_prompt=false")
    assert "residual: a path around the LLM is no longer supported" in refusal(file, "model.residual=true")
    watched = "stages.first.watch={every: 5, metric: margin, patience: null}"
    assert load_recipe(file, [watched]) == load_recipe(file, ["stages.first.watch={every: 5}"])
    assert "patience: watch no longer ends a stage" in refusal(file, "stages.first.watch={patience: 3}")


def test_overrides_reach_items_by_number_and_by_name(file: Path) -> None:
    recipe = load_recipe(
        file, ["stages.second.learning_rate=2e-5", "stages.0.lora.encoder.r=2", "model.connector.type=latent_attention"]
    )
    assert recipe.stages[1].learning_rate == 2e-5
    assert recipe.stages[0].lora.encoder.r == 2
    assert recipe.model.connector.kwargs() == {"num_latents": 128, "num_heads": 8}


def test_an_override_of_max_steps_or_epochs_takes_the_place_of_the_other(file: Path) -> None:
    first, second = load_recipe(file, ["stages.second.max_steps=3", "stages.0.epochs=1"]).stages
    assert (first.max_steps, first.epochs, second.max_steps, second.epochs) == (None, 1, 3, None)
    both = refusal(file, "stages.second.max_steps=3", "stages.second.epochs=1")
    assert both.startswith("--set stages.second.max_steps=3: ") and "remove one" in both
    assert "give either max_steps or epochs" in refusal(file, "stages.second.epochs=null")


def test_a_batch_of_one_row_without_a_negative_is_refused(file: Path) -> None:
    alone = ["stages.second.batch_size=1", "stages.second.hard_negatives=0"]
    assert "batch_size: 1 with hard_negatives: 0" in refusal(file, *alone)
    assert load_recipe(file, [alone[0], "stages.second.hard_negatives=1"]).stages[1].batch_size == 1


def test_lora_has_published_settings_where_none_are_given(file: Path) -> None:
    first, second = load_recipe(file).stages
    assert (first.lora.encoder.r, first.lora.encoder.alpha, first.lora.encoder.dropout) == (16, 32, 0.1)
    assert first.lora.llm is None and second.lora.encoder is None and second.lora.llm.r == 16


def test_data_root_of_the_file_starts_at_the_file_and_of_set_from_here(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("data", "here/data"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.jsonl").write_text('{"text": "x"}\n')
    edited(file, "name: small", "name: small\ndata_root: data")
    edited(file, '"sample:passages"', '"*.jsonl"')
    monkeypatch.chdir(tmp_path / "here")
    assert load_recipe(file).stages[0].data[0].path == str(tmp_path / "data" / "*.jsonl")
    other = load_recipe(file, ["data_root=data"])
    assert other.stages[0].data[0].path == str(tmp_path / "here" / "data" / "*.jsonl")


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_of_the_repository_is_valid_and_comes_back(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path.stem, check_files=False)
    assert recipe.name == path.stem
    copy = tmp_path / "recipe.yaml"
    copy.write_text(resolved_yaml(recipe), encoding="utf-8")
    # Variants are other trainings: the record of this one does not name them.
    assert load_recipe(copy, check_files=False) == recipe.model_copy(update={"variants": {}})


def test_resolved_recipe_spells_every_default(file: Path) -> None:
    written = Document.parse(resolved_yaml(load_recipe(file)), "x").value
    assert written["stages"][1]["temperature"] == 0.05
    assert set(written["stages"][0]) == set(type(load_recipe(file).stages[0]).model_fields)


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), WORDS,
    st.sampled_from(["1e-4", "no", "010", "1:30", "~", "", "2024-01-01", "0x1", "1_000", ".5", "on", "<<", "= "]),
)  # fmt: skip


def test_a_written_recipe_reads_the_same_with_yaml_1_1() -> None:
    written = write({"language": "no", "path": None, "rate": 1e-7})
    assert written == 'language: "no"\npath: null\nrate: 1.0e-07\n'


@given(st.dictionaries(WORDS, st.one_of(SCALARS, st.lists(SCALARS), st.dictionaries(WORDS, SCALARS))))
def test_yaml_comes_back_as_written(value: dict) -> None:
    back = Document.parse(write(value), "x").value
    assert back == value
    assert repr(back) == repr(value)  # 1, True and 1.0 are equal in Python


@given(
    seed=st.integers(0, 2**32 - 1),
    rate=st.floats(1e-7, 1.0),
    instruction=st.one_of(st.none(), WORDS),
    dims=st.one_of(st.none(), st.lists(st.integers(1, 64), min_size=1, max_size=3, unique=True)),
    steps=st.integers(1, 10**9),
)
def test_any_recipe_loads_back_equal(tmp_path_factory, seed, rate, instruction, dims, steps) -> None:  # noqa: ANN001
    value = Document.parse(RECIPE, "x").value
    value["seed"] = seed
    value["stages"][1] |= {"learning_rate": rate, "matryoshka_dims": dims, "epochs": None, "max_steps": steps}
    value["stages"][1]["data"][0]["instruction"] = instruction
    recipe = Recipe.model_validate(value)
    file = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    file.write_text(resolved_yaml(recipe), encoding="utf-8")
    assert load_recipe(file) == recipe


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("no", "no"), ("010", 10), ("1:30", "1:30"), ("true", True), ("~", None), ("1_000", 1000),
     ("2024-01-01", "2024-01-01"), ("5.", 5.0), ("!!str 1", "1")],
)  # fmt: skip
def test_scalars_are_what_they_look_like(text: str, value: object) -> None:
    read = Document.parse(text, "x").value
    assert read == value and type(read) is type(value)


BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, r"x\.yaml line \d+: more than 50,000 values"),
        ("a: " + "[" * 60 + "]" * 60, r"x\.yaml line 1: .* more than 50 levels"),
        # Which comes first depends on how deep Python may go here, which some libraries raise.
        ("a: " + "[" * 700, r"x\.yaml: is nested too deeply|x\.yaml line 1: not valid YAML"),
        ("? [[1]]\n: 2", r"x\.yaml: not valid YAML: unhashable"),
    ],
)
def test_aliases_and_brackets_without_end_are_refused(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Document.parse(text, "x.yaml")


def test_an_alias_is_what_its_anchor_holds() -> None:
    assert Document.parse("a: &a {x: [1]}\nb: *a", "x").value["b"] == {"x": [1]}


def test_published_sets_bring_their_facts_and_chinese_ones_are_dropped() -> None:
    recipe = load_recipe("paper-mistral", variant="published-lists", check_files=False)
    kept = recipe.sources(recipe.stages[1])
    dropped = [source for source in recipe.stages[1].data if not recipe.reads(source)]
    assert [source.hub for source in dropped] == ["Hieuman/dureader", "Hieuman/t2ranking", "Hieuman/zh_MIRACL"]
    assert {source.role for source in kept} == {"reconstruct", "passage_and_query", "query_to_passage"}
    everything = load_recipe("paper-mistral", ["english_only=false"], variant="published-lists", check_files=False)
    assert len(everything.sources(everything.stages[1])) == len(kept) + 3
    sets = {source.hub: source for source in recipe.stages[3].data}
    assert len(sets) == 38 and sets["Hieuman/SQuAD"].limit == 97400
    assert sets["Hieuman/Emotion"].in_batch_negatives is False and sets["Hieuman/20NewsGroups"].in_batch_negatives
    assert sets["Hieuman/Fever"].instruction == "Given a claim, retrieve documents that support or refute the claim."
    assert [stage.name for stage in recipe.stages] == [
        "alignment-reconstruction", "alignment-completion", "retrieval", "all-sets",
    ]  # fmt: skip
    assert recipe.stages[0].data[0].spec(3).fields == {"text": "query"}


@pytest.mark.parametrize("name", ["paper-mistral", "paper-llama"])
def test_stage_1_of_the_paper_reads_two_sets_and_a_bad_row_stops_no_run(name: str) -> None:
    recipe = load_recipe(name, check_files=False)
    read = [(source.hub, source.role, source.limit) for stage in recipe.stages[:2] for source in stage.data]
    assert read == [
        ("Hieuman/wikitext-103-filtered", "reconstruct", 100_000),
        ("Hieuman/MSMarco", "passage_and_query", 100_000),
    ]
    for variant in recipe.variant_names:
        made = load_recipe(name, variant=variant, check_files=False)
        assert {source.skip_bad for stage in made.stages for source in stage.data} == {1000}
    lists = load_recipe(name, variant="published-lists", check_files=False)
    assert [len(stage.data) for stage in lists.stages] == [8, 34, 21, 38]
    assert {stage.name: stage for stage in lists.stages[2:]} == {stage.name: stage for stage in recipe.stages[2:]}


def test_the_modern_recipe_differs_from_the_paper_by_its_bases() -> None:
    paper, modern = (load_recipe(name, check_files=False) for name in ("paper-mistral", "mmbert-qwen3"))
    assert modern.stages == paper.stages and (modern.seed, modern.max_length) == (paper.seed, paper.max_length)
    bases = {"encoder": paper.model.encoder, "llm": paper.model.llm}
    assert modern.model.model_copy(update=bases) == paper.model
    assert (modern.model.encoder.path, modern.model.llm.path) == ("jhu-clsp/mmBERT-base", "Qwen/Qwen3-4B")
    small = load_recipe("mmbert-qwen3", variant="small", check_files=False)
    assert (small.model.encoder.path, small.model.llm.path) == ("jhu-clsp/mmBERT-small", "Qwen/Qwen3-0.6B")


def test_warmup_is_the_smaller_of_share_and_bound(file: Path) -> None:
    stage = load_recipe(file).stages[0]
    assert (stage.warmup(100), stage.warmup(100_000)) == (10, 500)
    assert load_recipe(file).stages[1].steps(100) == 25


def test_unknown_recipe_lists_the_known() -> None:
    assert "bridge, finetune, mini, mmbert-qwen3, paper-llama, paper-mistral, tiny" in refusal("nowhere")


def test_a_registered_objective_is_written_only_where_it_is_used(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = resolved_yaml(load_recipe(file))
    monkeypatch.setitem(OBJECTIVES, "mine", OBJECTIVES["distill"])
    assert resolved_yaml(load_recipe(file)) == plain
    assert "mine: 1.0" in resolved_yaml(load_recipe(file, ["stages.first.objectives.mine=1"]))
    monkeypatch.delitem(OBJECTIVES, "mine")
    assert load_recipe(file, ["stages.first.objectives.mine=0"]).stages[0].objectives["distill"] == 1
    with pytest.raises(RecipeError, match="mine is no alignment objective"):
        load_recipe(file, ["stages.first.objectives.mine=1"])


def test_the_name_of_an_objective_is_taken_once() -> None:
    class Other(Reconstruction):
        name = "reconstruction"

    with pytest.raises(ValueError, match="objective 'reconstruction': .*Reconstruction has this name already"):
        register(Other())
    assert type(OBJECTIVES["reconstruction"]) is Reconstruction


def test_parts_that_no_stage_trains_are_left_out_or_refused() -> None:
    file = Path(__file__).parents[2] / "cases" / "no-projection-trained.yaml"
    assert load_recipe(file).model.output_projection is False
    trained = load_recipe(file, ["stages.contrastive.train.output_projection=true"])
    assert trained.model.output_projection is True and load_recipe("tiny").model.output_projection is True
    assert load_recipe("tiny", variant="alignment-only").model.output_projection is False
    with pytest.raises(RecipeError, match=r"output_projection: no stage.*random weights: set model\.output"):
        load_recipe(file, ["model.output_projection=true"])
    untrained = [f"stages.{stage}.train.connector=false" for stage in ("alignment", "contrastive")]
    with pytest.raises(RecipeError, match=r"model\.connector: no stage trains it"):
        load_recipe(file, untrained)


@pytest.mark.parametrize("recipe", ["tiny", "mini", "bridge", "paper-mistral", "paper-llama", "mmbert-qwen3"])
def test_no_variant_of_a_recipe_that_comes_along_has_an_untrained_part(recipe: str) -> None:
    for name in load_recipe(recipe, check_files=False).variant_names:
        loaded = load_recipe(recipe, variant=name, check_files=False)
        assert loaded.model.output_projection == any(stage.train.output_projection for stage in loaded.stages)


def test_a_lowest_rate_of_a_constant_schedule_is_refused() -> None:
    changes = ["stages.alignment.schedule=constant", "stages.alignment.min_learning_rate=0.0001"]
    with pytest.raises(RecipeError, match="min_learning_rate has no effect with schedule: constant"):
        load_recipe("tiny", changes)


def test_a_revision_of_a_model_on_this_machine_is_refused():
    with pytest.raises(UsageError, match=r"model\.start\.revision='v2': mini is a local folder, .*: remove the key"):
        start.folder("mini", "v2")
