"""What `lusifer check` says: exact counts, and costs that follow the recipe."""

from __future__ import annotations

import functools
import tomllib
from importlib import resources
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from lusifer.cli.check import describe
from lusifer.errors import UsageError
from lusifer.model.bases import backbones
from lusifer.training.estimate.cost import StageEstimate, cards, estimate, stage_load
from lusifer.training.recipe.load import load_recipe
from lusifer.training.run.run import KINDS
from support.small_run import ALIGN, CONTRAST

pytestmark = pytest.mark.slow


@functools.cache
def stages(name: str, *overrides: str, variant: str | None = None, only: str | None = None) -> dict[str, StageEstimate]:
    recipe = load_recipe(name, overrides, check_files=False, variant=variant)
    return {stage.name: stage for stage in estimate(recipe, None if only is None else [only])}


def counts(stage: StageEstimate) -> dict[str, tuple[int, int]]:
    return {part.part: (part.parameters, part.trainable) for part in stage.parts}


@pytest.fixture(scope="module")
def paper() -> dict[str, StageEstimate]:
    return stages("paper-mistral")


def test_paper_recipe_is_counted_without_a_network(paper: dict[str, StageEstimate]) -> None:
    first, retrieval = counts(paper["alignment-reconstruction"]), counts(paper["retrieval"])
    # Mistral 7B v0.3 has 7,248,023,552 parameters, its LM head 32,768 x 4,096 of them.
    assert first["llm"] == (7_248_023_552 - 32_768 * 4_096, 0)
    h, d = 1024, 4096
    assert first["connector"] == ((h * h + h) + (h * d + d) + d,) * 2
    assert first["output_projection"] == (2 * (d * d + d), 0)
    # XLM-R large without pooler, and rank 16 on query, key, value, attention output and both feed-forward layers.
    lora = 24 * 16 * (4 * (h + h) + 2 * (h + 4 * h))
    assert first["encoder"] == (558_840_832 + lora, lora)
    kv, up = 1024, 14336
    lora = 32 * 16 * (2 * (d + d) + 2 * (d + kv) + 3 * (d + up))
    assert retrieval["llm"] == (7_113_805_824 + lora, lora)


def test_modern_bases_have_the_sizes_they_are_published_with() -> None:
    """mmBERT 307 and 140 million (arXiv 2509.06888); Qwen3 4B has 4.0 and 3.6 without embeddings (its card)."""
    stage = "alignment-reconstruction"
    first = counts(stages("mmbert-qwen3", only=stage)[stage])
    h, ff = 768, 1152
    lora = 22 * 16 * ((h + 3 * h) + (h + h) + (h + 2 * ff) + (ff + h))
    assert first["encoder"] == (306_939_648 + lora, lora)
    assert first["llm"] == (4_022_468_096, 0) and (first["llm"][0] - 151_936 * 2560) // 10**7 == 363
    known = tomllib.loads((resources.files("lusifer.training.estimate") / "known_bases.toml").read_text("utf-8"))
    paths = {"FacebookAI/xlm-roberta-large": 559, "jhu-clsp/mmBERT-small": 140, "EuroBERT/EuroBERT-210m": 212,
             "facebook/nllb-200-distilled-600M": 414, "facebook/m2m100_418M": 282}  # fmt: skip
    for path, millions in paths.items():
        with torch.device("meta"):
            encoder = backbones.from_config(AutoConfig.for_model(**known[path]), "encoder")
        assert round(sum(parameter.numel() for parameter in encoder.parameters()) / 1e6) == millions


def test_steps_follow_rows_and_are_shared_by_source(paper: dict[str, StageEstimate]) -> None:
    assert [stage.load.steps for stage in paper.values()] == [391, 391, 8193, 14834]
    recipe = load_recipe("paper-mistral", variant="published-lists", check_files=False)
    load = stage_load(recipe, recipe.stages[1])
    assert load.dropped == ["Hieuman/dureader", "Hieuman/t2ranking", "Hieuman/zh_MIRACL"]
    rows = 31 * 100_000 - 2_600
    assert load.steps == -(-rows // 256)
    assert sum(source.steps for source in load.sources) == pytest.approx(load.steps)


@pytest.mark.parametrize("name", ["tiny", "finetune"])
def test_check_and_train_give_the_same_steps(name: str) -> None:
    """Also by source: an alignment step reads the sources of its objective, and these are drawn by weight."""
    more = {"tiny": ["stages.alignment.max_steps=21"], "finetune": []}[name]
    recipe = load_recipe(name, more, check_files=False)
    for number, stage in enumerate(recipe.stages, start=1):
        load = stage_load(recipe, stage)
        rows = KINDS[stage.kind].examples(recipe, stage, recipe.seed + number)
        assert load.steps == rows.steps
        if stage.kind == "alignment":
            trained = {name: each["steps"] for name, each in rows.reads().items()}
            assert {source.name: source.steps for source in load.sources} == {
                "passages": trained["reconstruction"],
                "pairs": trained["completion"],
            }
            assert trained["reconstruction"] != trained["completion"]


def test_memory_is_what_the_formula_says(paper: dict[str, StageEstimate]) -> None:
    stage = paper["alignment-reconstruction"]
    trained = sum(part.trainable for part in stage.parts)
    assert (stage.memory.gradients, stage.memory.optimizer) == (4 * trained, 8 * trained)
    # Backbones in 16 bit; adapters, connector and projection in 32.
    precise = trained + 2 * (4096 * 4096 + 4096)
    total = sum(part.parameters for part in stage.parts)
    head = 32_768 * 4_096
    assert stage.memory.weights == 2 * (total - precise + head) + 4 * precise


@pytest.mark.parametrize("recipe", ["paper-mistral", "paper-llama"])
def test_the_paper_recipes_fit_a_card_of_40_gb_in_every_stage(recipe: str, request: pytest.FixtureRequest) -> None:
    found = request.getfixturevalue("paper") if recipe == "paper-mistral" else stages(recipe)
    assert all(stage.memory.total < 39 * 2**30 for stage in found.values())
    # What trains, and the adapters of the stages before, beside the LLM in 16 bit.
    one, two = (counts(found[stage])["llm"] for stage in ("retrieval", "all-sets"))
    assert two == (one[0] + one[1], one[1])


def test_forward_flops_are_near_two_per_parameter_and_token(paper: dict[str, StageEstimate]) -> None:
    stage = paper["alignment-reconstruction"]
    # LLM: forward, recomputed, gradient towards the input, over 512 soft and 512 target positions a row.
    tokens = 256 * 1025
    assert stage.flops == pytest.approx(3 * 2 * 7.0e9 * tokens, rel=0.15)


@pytest.mark.parametrize(
    ("override", "part", "grows"),
    [
        ("stages.0.gradient_checkpointing=true", "flops", True),
        ("stages.0.gradient_checkpointing=true", "activations", False),
        ("stages.0.train.encoder=full", "trainable", True),
        ("stages.0.batch_size=32", "flops", True),
        ("stages.0.mini_batch_size=16", "activations", True),
        ("model.connector={type: latent_attention, num_latents: 4, num_heads: 4}", "flops", False),
        ("max_length=16", "flops", False),
    ],
)
def test_costs_follow_the_recipe(override: str, part: str, grows: bool) -> None:
    def value(stage: StageEstimate) -> float:
        trainable = sum(part.trainable for part in stage.parts)
        return {"flops": stage.flops, "activations": stage.memory.activations, "trainable": trainable}[part]

    before, after = (
        value(stages("tiny", *changes, variant="alignment-only")["alignment"]) for changes in ((), (override,))
    )
    assert after != before and (after > before) is grows


def test_more_negatives_cost_more() -> None:
    one, three = (
        stages("tiny", *more, variant="contrastive-only") for more in ((), ("stages.contrastive.hard_negatives=4",))
    )
    ratio = three["contrastive"].flops / one["contrastive"].flops
    assert ratio == pytest.approx((2 + 4) / (2 + 1))


def test_without_the_gradient_cache_a_step_is_cheaper_and_holds_the_whole_batch() -> None:
    twice, once = (
        stages("tiny", f"stages.contrastive.gradient_cache={each}", variant="contrastive-only")["contrastive"]
        for each in ("true", "false")
    )
    assert 0.6 < once.flops / twice.flops < 0.8
    assert once.memory.activations > 1.5 * twice.memory.activations


def test_what_only_the_llm_can_tell_is_refused(minilm_like_folder) -> None:  # noqa: ANN001
    llm = f"model.llm.path={minilm_like_folder}"
    with pytest.raises(UsageError, match="needs an LM head, and bert has none.*distill: 1"):
        stages("tiny", llm)
    with pytest.raises(UsageError, match="matryoshka_dims: 9999 is more than"):
        stages("tiny", "stages.contrastive.matryoshka_dims=[8, 9999]")
    with pytest.raises(UsageError, match="hf download someone/unheard-of config.json"):
        stages("tiny", "model.llm.path=someone/unheard-of")


def test_output_says_what_is_exact_and_what_is_not() -> None:
    short = describe("tiny", ["stages.alignment.max_steps=8"])
    assert "is estimated, not measured" in " ".join(short.split()) and len(short.splitlines()) <= 25
    assert all(name in short for name in (*cards(), "alignment", "contrastive", "17,024", "46,304", "`--details`"))
    text = describe("tiny", ["stages.alignment.max_steps=8"], details=True)
    assert text.splitlines()[:12] == short.splitlines()[:12]
    assert "estimates, not measurements" in " ".join(text.split())
    assert all(name in text for name in (*cards(), "passages", "pairs", "alignment", "contrastive"))
    assert max(map(len, text.splitlines())) <= 110


@pytest.fixture
def contrast(tmp_path: Path) -> Path:
    """The recipe of a stage on 250 pairs, 4 steps."""
    (tmp_path / "contrast.yaml").write_text(ALIGN[: ALIGN.index("  - name: ")] + CONTRAST)
    return tmp_path / "contrast.yaml"


def test_scores_on_held_pairs_are_counted(contrast: Path) -> None:
    (plain,), (scored,) = (
        estimate(load_recipe(contrast, more)) for more in ([], ["stages.contrast.evaluate={held: 0.1, every: 3}"])
    )
    assert (scored.load.scores.times, scored.load.scores.rows) == (3, 25)  # before step 1, at 3, at 4
    assert 50 < scored.load.scores.texts < 100
    added = scored.hours["H100 80 GB"] / plain.hours["H100 80 GB"]
    assert added == pytest.approx(1 + scored.scoring / (plain.load.steps * plain.flops))
    # A text of a step goes through twice, once with its gradients; one of a score once.
    a_text = plain.flops / (8 * 3)
    assert 0.1 * a_text < scored.scoring / (3 * scored.load.scores.texts) < 0.5 * a_text


def test_held_rows_are_not_counted_as_trained_on(contrast: Path) -> None:
    more = ["stages.contrast.max_steps=null", "stages.contrast.epochs=1", "stages.contrast.evaluate={held: 0.2}"]
    recipe = load_recipe(contrast, more)
    assert stage_load(recipe, recipe.stages[0]).steps == 25
    recipe = load_recipe(contrast, [*more, "stages.contrast.data.0.limit=40"])
    assert stage_load(recipe, recipe.stages[0]).scores is None
