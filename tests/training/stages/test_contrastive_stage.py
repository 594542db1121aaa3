"""The losses of stage 2: which texts are negatives, and that caching changes no gradient."""

import copy

import pytest
import torch
from sentence_transformers import SentenceTransformer
from torch.nn import functional

from lusifer.embedder.assemble import assemble
from lusifer.model import build
from lusifer.model.build import make_tiny_bases
from lusifer.training.estimate.rehearsal import Live
from lusifer.training.stages import losses
from lusifer.training.stages.contrastive import loss
from support.training import ROWS, features, stage


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> SentenceTransformer:
    encoder, llm = (build.Base(str(path)) for path in make_tiny_bases(tmp_path_factory.mktemp("bases"), 0))
    model = build.join(build.read_backbone(encoder, "encoder"), build.read_backbone(llm, "llm"), 0, num_soft_tokens=1)
    return assemble(model, build.read_tokenizer(encoder.path), max_seq_length=32).eval()


def gradients(embedder: SentenceTransformer, value: torch.Tensor) -> dict[str, torch.Tensor]:
    embedder.zero_grad()
    value.backward()
    return {name: p.grad.clone() for name, p in embedder.named_parameters() if p.grad is not None}


def plain(embedder: SentenceTransformer, in_batch: bool) -> torch.Tensor:
    """InfoNCE written out, without cache."""
    q, p, n = (functional.normalize(embedder(f)["sentence_embedding"], dim=-1) for f in features(embedder))
    if in_batch:
        return functional.cross_entropy(q @ torch.cat([p, n]).T / 0.05, torch.arange(len(q)))
    scores = torch.stack([(q * p).sum(-1), (q * n).sum(-1)], dim=1) / 0.05
    return functional.cross_entropy(scores, torch.zeros(len(q), dtype=torch.long))


@pytest.mark.parametrize("in_batch", [True, False])
@pytest.mark.parametrize("chunk", [1, 3, 4])
@pytest.mark.parametrize("caches", [True, False])
def test_the_loss_of_mini_batches_has_the_gradients_of_the_plain_one(
    embedder: SentenceTransformer, in_batch: bool, chunk: int, caches: bool
) -> None:
    wanted = plain(embedder, in_batch)
    expected = gradients(embedder, wanted)
    cached = loss(stage(mini_batch_size=chunk, gradient_cache=caches), embedder, in_batch)(features(embedder), None)
    assert cached.item() == pytest.approx(wanted.item(), rel=1e-5)
    found = gradients(embedder, cached)
    assert found.keys() == expected.keys()
    largest = max(g.abs().max() for g in expected.values())
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() < 1e-5 * largest, name


@pytest.mark.parametrize(
    ("kind", "in_batch", "dims"),
    [("infonce", True, None), ("infonce", True, [8]), ("infonce", False, None), ("infonce", False, [8])]
    + [("ntxent_l2", True, None), ("ntxent_l2", False, None)],
)
def test_sorting_by_length_changes_what_is_padded_and_no_gradient(
    embedder: SentenceTransformer, monkeypatch: pytest.MonkeyPatch, kind: str, in_batch: bool, dims: list[int] | None
) -> None:
    long = "and the rest of the way it goes on through the hills to the sea"
    rows = {key: [f"{text} {long}" * (n % 2) or text for n, text in enumerate(texts)] for key, texts in ROWS.items()}

    def run() -> tuple[float, dict[str, torch.Tensor], int]:
        made, seen = loss(stage(loss=kind, matryoshka_dims=dims), embedder, in_batch), []
        handle = embedder.register_forward_pre_hook(lambda module, args: seen.append(args[0]["input_ids"].numel()))
        value = made(features(embedder, rows), None)
        found = gradients(embedder, value)
        handle.remove()
        return value.item(), found, sum(seen)

    value, found, tokens = run()
    with monkeypatch.context() as context:
        context.delattr(losses.ByLength, "forward_cached")
        context.delattr(losses.ByLength, "calculate_loss")
        wanted, expected, more = run()
    assert value == pytest.approx(wanted, rel=1e-5) and found.keys() == expected.keys()
    largest = max(g.abs().max() for g in expected.values())
    assert max((found[name] - gradient).abs().max() for name, gradient in expected.items()) < 1e-5 * largest
    assert tokens < 0.8 * more


@pytest.mark.parametrize(
    ("kind", "in_batch", "dims"),
    [("infonce", True, None), ("infonce", True, [8]), ("infonce", False, [8])]
    + [("ntxent_l2", True, None), ("ntxent_l2", False, None)],
)
def test_without_the_cache_texts_are_embedded_once_with_the_same_gradients(
    embedder: SentenceTransformer, kind: str, in_batch: bool, dims: list[int] | None
) -> None:
    """In training mode: dropout draws the same numbers in both."""

    def run(caches: bool) -> tuple[float, dict[str, torch.Tensor], int]:
        made = loss(stage(loss=kind, matryoshka_dims=dims, gradient_cache=caches), embedder, in_batch)
        seen: list[int] = []
        handle = embedder.register_forward_pre_hook(lambda module, args: seen.append(len(args[0]["input_ids"])))
        torch.manual_seed(0)
        value = made(features(embedder), None)
        found = gradients(embedder, value * 0.5)  # a loss is scaled by who accumulates gradients
        handle.remove()
        return value.item(), found, sum(seen)

    embedder.train()
    try:
        value, expected, twice = run(True)
        same, found, once = run(False)
    finally:
        embedder.eval()
    assert same == pytest.approx(value, rel=1e-6) and (once, twice) == (12, 24)
    assert found.keys() == expected.keys()
    largest = max(g.abs().max() for g in expected.values())
    assert max((found[name] - gradient).abs().max() for name, gradient in expected.items()) < 1e-5 * largest


def test_without_the_cache_a_loss_is_scored_without_gradient(embedder: SentenceTransformer) -> None:
    with torch.no_grad():
        once, twice = (loss(stage(gradient_cache=each), embedder, True)(features(embedder), None) for each in (0, 1))
    assert not once.requires_grad and once.item() == pytest.approx(twice.item(), rel=1e-6)


def test_no_mini_batch_is_padded_beyond_its_budget_and_columns_share_them(embedder: SentenceTransformer) -> None:
    long = "and the rest of the way it goes on through the hills to the sea"
    rows = {key: [f"{text} {long}" * (n % 2) or text for n, text in enumerate(texts)] for key, texts in ROWS.items()}
    made, padded, real = loss(stage(mini_batch_tokens=80), embedder, True), [], []

    def look(module: object, args: tuple) -> None:
        padded.append(args[0]["input_ids"].numel())
        real.append(int(args[0]["attention_mask"].sum()))

    handle = embedder.register_forward_pre_hook(look)
    made(features(embedder, rows), None)
    handle.remove()
    assert max(padded) <= 80 and sum(padded) < 1.2 * sum(real)
    assert len(padded) < 12  # texts of several columns are embedded together


def test_memory_does_not_grow_with_the_batch(embedder: SentenceTransformer) -> None:
    def peak(times: int, tokens: int) -> int:
        rows = {key: [f"{text} {n}" for n in range(times) for text in texts] for key, texts in ROWS.items()}
        batch, made = features(embedder, rows), loss(stage(mini_batch_tokens=tokens), embedder, True)
        embedder.zero_grad()
        with Live() as live:
            made(batch, None).backward()
        return live.peak

    small, large = peak(2, 200), peak(16, 200)
    assert large < 1.5 * small  # eight times the texts: what grows is ids, vectors and their similarities
    assert peak(16, 1600) > 4 * small


@pytest.mark.parametrize(("kind", "in_batch"), [("infonce", True), ("infonce", False), ("ntxent_l2", True)])
def test_mini_batches_are_counted_in_tokens_where_the_recipe_says_so(
    embedder: SentenceTransformer, kind: str, in_batch: bool
) -> None:
    made = loss(stage(loss=kind, mini_batch_tokens=7), embedder, in_batch)
    rows: list[int] = []
    handle = embedder.register_forward_pre_hook(lambda module, args: rows.append(len(args[0]["input_ids"])))
    made(features(embedder), None)
    handle.remove()
    assert rows == [1] * 12  # no two of these texts have seven tokens together


def test_own_negatives_ignore_the_other_rows(embedder: SentenceTransformer) -> None:
    changed = copy.deepcopy(ROWS)
    changed["positive"][3] = ROWS["query"][0]  # a perfect negative for row 0, if other rows counted
    kept = {key: texts[:3] for key, texts in ROWS.items()}
    own = loss(stage(), embedder, False)
    one, other = (own(features(embedder, rows), None).item() for rows in (ROWS, changed))
    first = own(features(embedder, kept), None).item()
    fourth = own(features(embedder, {k: t[3:] for k, t in changed.items()}), None).item()
    assert other == pytest.approx((3 * first + fourth) / 4, rel=1e-4)
    in_batch = loss(stage(), embedder, True)
    a, b = (in_batch(features(embedder, rows), None).item() for rows in (ROWS, changed))
    assert a != pytest.approx(b) and one != pytest.approx(other)


def test_own_negatives_need_a_negative(embedder: SentenceTransformer) -> None:
    rows = {key: ROWS[key] for key in ("query", "positive")}
    with pytest.raises(ValueError, match="hard negatives"):
        loss(stage(), embedder, False)(features(embedder, rows), None)


def test_matryoshka_trains_leading_dimensions_too(embedder: SentenceTransformer) -> None:
    whole = loss(stage(), embedder, True)(features(embedder), None).item()
    nested = loss(stage(matryoshka_dims=[48, 8]), embedder, True)(features(embedder), None).item()
    assert nested > whole


def test_matryoshka_trains_the_whole_vector_though_it_is_not_listed(embedder: SentenceTransformer) -> None:
    made = loss(stage(matryoshka_dims=[8]), embedder, True)
    assert list(made.matryoshka_dims) == [48, 8]
    last = gradients(embedder, made(features(embedder), None))["0.model.output_projection.2.bias"][40:]
    assert last.abs().min() > 0
