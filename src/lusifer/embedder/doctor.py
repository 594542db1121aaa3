"""The checks of `lusifer doctor` on a model's real weights; each gives a `Probe` that passed or failed.

Each check finds a fault that occurred in practice: positions that count padding, a causal mask that was left on,
connector weights that were trained and not saved, special tokens that are read from a text, truncation that loses the
final token.
"""

from __future__ import annotations

import copy
import os
import tempfile
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize

from lusifer.embedder import contents, folder, golden, int8
from lusifer.embedder.identity import identity
from lusifer.errors import LusiferError, ModelFolderError, Probe, UsageError
from lusifer.io import hub, names, weights
from lusifer.io.files import read_json
from lusifer.io.weights import TRAINABLE, TRAINABLE_NAMES
from lusifer.model import adapters, probes
from lusifer.model.adapters import PARTS
from lusifer.model.lusifer import LusiferModel
from lusifer.prompts import check_room

LARGEST_COPY = 2 * 2**30
"""Bytes of weights up to which the model is saved and loaded again."""
LARGEST_OFF = 1e-4
"""Largest difference of a vector's length from 1: float32 stays below, half precision is off by up to 5e-3."""
LONGEST_CHECKED = 100_000
"""The largest limit in tokens that is tried. Tokenizers without a limit have a huge number in its place."""
UNLOADABLE = (ModelFolderError, AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""Errors that loading a damaged folder raises."""
PROBE_PROMPT = "Given a question, find passages that answer it.\n"
LONGEST = 1024
"""The longest text that is embedded, in tokens."""
TEXTS = (
    "The river rises in spring, when the snow in the mountains melts.",
    "¿A qué hora sale el último tren?",
    "Вода закипает при ста градусах, но в горах раньше.",
    "水",
    "نمت القرية حول بئر قديمة، ثم جاء الطريق وجاءت معه المتاجر والمدرسة.",
    "नदी के किनारे एक पुराना पेड़ खड़ा है।",
    "Mji ulikua haraka baada ya reli kufika. " * 6,
    "తెలుగు",
)


def examine(target: str | os.PathLike[str] | SentenceTransformer, device: str | None = None) -> list[Probe]:
    """Check a model folder, or a model in memory.

    Args:
        target: A name or path as for `lusifer.load`, or an embedder, with or without adapters.
        device: Where to load a folder. None takes the best device of the machine.

    Returns:
        The checks in order. If the folder is incomplete, only the checks that do not load it.

    Raises:
        UsageError: There is no such folder.
    """
    if isinstance(target, SentenceTransformer):
        return _examine_model(target)
    path = names.model(target)
    if not isinstance(path, Path) or not path.is_dir():
        embedder = folder.load(target, device=device)
        place = hub.fetch(str(path), [golden.FILE]) if isinstance(path, str) else path
        return _examine_model(embedder) + ([golden.check(embedder, place)] if (place / golden.FILE).is_file() else [])
    found = [_is_whole(path), *_trained_is_saved(path)]
    if not found[0].ok:
        return found
    try:
        embedder = folder.load(path, device=device)
        golden.vectors(embedder, TEXTS[:1])
    except torch.OutOfMemoryError:
        raise  # the machine is too small; the folder may be sound
    except UNLOADABLE as error:
        first = next(iter(str(error).splitlines()), "")
        words = f"{type(error).__name__}: {first}; copy or save the folder again (--debug shows the traceback)"
        words = first if isinstance(error, LusiferError) else words  # our own messages already end with advice
        return [*found, Probe("the folder loads and embeds", False, words, error)]
    found += _examine_model(embedder)
    has_some = (path / golden.FILE).is_file() or (contents.is_ours(path) and not contents.is_int8(path))
    return [*found, golden.check(embedder, path)] if has_some else found


def _is_whole(path: Path) -> Probe:
    """Check that every file is there, with every tensor that config.json requires."""
    name = contents.COMPLETE
    try:
        folder.check(path)
        if contents.is_int8(path):
            what = "int8 graph"
        elif all(file.is_file() for file in weights.files(path, contents.ADVICE)):
            what = f"{len(contents.weights(path))} tensors"
        else:  # an embedder of another kind: `folder.check` refuses a LUSIFER model without its tensors
            what = "adapters alone" if (path / contents.ADAPTERS).is_file() else "no tensors at its root"
        return Probe(name, True, f"{what}, identity {identity(path)}")
    except ModelFolderError as error:
        return Probe(name, False, str(error))


def _trained_is_saved(path: Path) -> list[Probe]:
    """Check that a checkpoint has exactly the trainable tensors; for any other folder there is no probe."""
    name, advice, file = "what trained is saved", "resume from the checkpoint before", path / TRAINABLE
    if not file.exists() and not (path / TRAINABLE_NAMES).exists():
        return []
    try:
        wanted = set(read_json(path / TRAINABLE_NAMES, advice, ModelFolderError, dict).get("tensors", ()))
        with weights.opened(file, advice) as tensors:
            found = set(tensors.keys())
    except ModelFolderError as error:
        return [Probe(name, False, str(error))]
    parts = {
        part: [sum(tensor.startswith(f"{part}.") for tensor in some) for some in (found, wanted)] for part in PARTS
    }
    words = ", ".join(f"{part} {there} of {of}" for part, (there, of) in parts.items() if of)
    wrong = sorted(found ^ wanted)
    more = f"; {wrong[0]} is {'missing' if wrong[0] in wanted else 'not listed'}: {advice}" if wrong else ""
    return [Probe(name, not wrong, f"{len(found)} of {len(wanted)} tensors in {file.name}: {words}{more}")]


def _examine_model(embedder: SentenceTransformer) -> list[Probe]:
    """Check a loaded model; a LUSIFER model gets more checks than another embedder."""
    embedder.eval()
    model = getattr(embedder[0], "model", None)
    found: list[Probe] = []
    if isinstance(model, LusiferModel):
        features = embedder.preprocess(list(TEXTS))
        ids, mask = (features[key].to(embedder.device) for key in ("input_ids", "attention_mask"))
        found += [
            _positions(model, ids, mask),
            *probes.run_probes(model, ids, mask),
            _encode_is_forward(embedder, model),
        ]
        if any(adapters.adapted_layers(model)):
            found.append(_merged_is_unmerged(model, ids, mask))
    else:
        finite = bool(torch.isfinite(golden.vectors(embedder, TEXTS)).all())
        found += [Probe("vectors are finite", finite, f"finite {finite}"), _alone_is_together(embedder)]
    if isinstance(embedder[-1], Normalize):
        worst = float((golden.vectors(embedder, TEXTS).norm(dim=-1) - 1).abs().max())
        found.append(Probe("vectors have length 1", worst < LARGEST_OFF, f"largest difference {worst:.1e}"))
    for check in (_special_tokens_are_text, _cut_keeps_the_end, _longest_text, _prompt_reaches):
        found.append(check(embedder))
    return found if isinstance(model, int8.Int8Model) else [*found, _saved_is_loaded(embedder)]


@torch.no_grad()
def _positions(model: LusiferModel, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Probe:
    """Check that the LLM's position ids count the real positions of each text: 0, 1, 2, ..."""
    name = "positions follow the text"
    if model.config.soft_token_position == "padding":
        return Probe(
            name,
            False,
            "config.json has soft_token_position: padding, so positions count the padding and a vector depends on its "
            "batch; this reproduces the published arithmetic: for use, convert the checkpoint without --compat",
        )
    prompt = model.soft_prompt(input_ids, attention_mask)
    real = prompt.attention_mask.bool()
    wanted = real.cumsum(dim=1) - 1
    wrong = int(((prompt.position_ids != wanted) & real).any(dim=1).sum())
    return Probe(name, not wrong, f"{wrong} of {len(input_ids)} texts in a padded batch have wrong position ids")


@torch.no_grad()
def _encode_is_forward(embedder: SentenceTransformer, model: LusiferModel) -> Probe:
    """Check that `encode` gives the vectors of the model's own forward pass."""
    features = embedder.tokenizer(
        list(TEXTS), padding=True, truncation=True, max_length=embedder.max_seq_length, return_tensors="pt"
    ).to(embedder.device)
    direct = model(features["input_ids"], features["attention_mask"]).embedding
    same = golden.vectors(embedder, TEXTS)
    return probes.nearly_equal("encode equals the forward pass", same, direct, model)


@torch.no_grad()
def _merged_is_unmerged(model: LusiferModel, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Probe:
    """Check that merging the adapters into their layers does not change a vector."""
    before = model(input_ids, attention_mask).embedding
    merged = copy.deepcopy(model)
    adapters.merge(merged)
    after = merged(input_ids, attention_mask).embedding
    return probes.nearly_equal("merged equals unmerged", before, after, model)


def _alone_is_together(embedder: SentenceTransformer) -> Probe:
    """Check that a vector is the same alone and in a padded batch."""
    together = golden.vectors(embedder, TEXTS)
    alone = torch.cat([golden.vectors(embedder, [text]) for text in TEXTS])
    return probes.nearly_equal("padding never changes a vector", together, alone, embedder)


def _longest_text(embedder: SentenceTransformer) -> Probe:
    """Check that both backbones can read a text of the maximum length."""
    name = "a text of full length works"
    limit = min(embedder.max_seq_length or LONGEST, LONGEST)
    length = min(limit, len(_ids(embedder, "water " * limit)))
    try:
        vector = golden.vectors(embedder, ["water " * length])
    except (IndexError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        return Probe(name, False, f"{limit} tokens fail: {first}; save the model with a smaller max_seq_length")
    return Probe(name, bool(torch.isfinite(vector).all()), f"{length} tokens")


def _saved_is_loaded(embedder: SentenceTransformer) -> Probe:
    """Check that a saved and loaded model gives the same vectors to the bit; with adapters, which merge, nearly."""
    size = sum(p.numel() * p.element_size() for p in embedder.parameters())
    if size > LARGEST_COPY:
        return Probe("saved equals loaded (not checked)", True, f"{size / 2**30:.1f} GiB of weights, too much to copy")
    before = golden.vectors(embedder, TEXTS)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "model"
        folder.save(embedder, path)
        again = folder.load(path, device=str(embedder.device))
    after = golden.vectors(again, TEXTS)
    name = "saved equals loaded"
    model = getattr(embedder[0], "model", None)
    if isinstance(model, LusiferModel) and any(adapters.adapted_layers(model)):
        return probes.nearly_equal(name, before, after, model, ", adapters merged")
    worst = float((before - after).abs().max())
    return Probe(name, worst == 0, f"largest difference {worst:.1e}")


def _special_tokens_are_text(embedder: SentenceTransformer) -> Probe:
    """Check that a special token written in a text is read as plain text."""
    tokenizer = embedder.tokenizer
    plain = _ids(embedder, "a b")
    read = [
        token
        for token, number in zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
        if token != tokenizer.unk_token and _ids(embedder, f"a {token} b").count(number) > plain.count(number)
    ]
    detail = f"a text may contain {', '.join(tokenizer.all_special_tokens)}"
    if read:
        detail = f"{', '.join(read)} in a text is read as the special token"
    return Probe("special tokens in a text are text", not read, detail)


def _cut_keeps_the_end(embedder: SentenceTransformer) -> Probe:
    """Check that a truncated text ends with the final special token and is within the limit."""
    name = "truncating keeps the final token"
    limit = embedder.max_seq_length
    if limit is None or limit > LONGEST_CHECKED:
        return Probe(name, True, "the model has no token limit")
    short, long = _ids(embedder, "a"), _ids(embedder, "water and fire " * limit)
    final = short[-1] if short[-1] in embedder.tokenizer.all_special_ids else None
    ok = len(long) <= limit and (final is None or long[-1] == final)
    word = "none" if final is None else embedder.tokenizer.convert_ids_to_tokens(final)
    return Probe(name, ok, f"{len(long)} of at most {limit} tokens, final token {word}")


def _prompt_reaches(embedder: SentenceTransformer) -> Probe:
    """Check that a prompt changes the vector and leaves room for a text."""
    what = "a prompt reaches the model"
    for name, text in embedder.prompts.items():
        try:
            check_room(text, embedder.tokenizer, embedder.max_seq_length, f"prompt {name!r}")
        except UsageError as error:
            return Probe(what, False, str(error))
    saved = [(name, text) for name, text in embedder.prompts.items() if text]
    name, prompt = saved[0] if saved else ("of this check", PROBE_PROMPT)
    vectors = [
        embedder.encode(["Where does the river begin?"], prompt=text, convert_to_tensor=True, show_progress_bar=False)
        for text in ("", prompt)
    ]
    moved = float((vectors[0] - vectors[1]).float().abs().max())
    return Probe(what, moved > 1e-6, f"prompt {name!r} moves the vector by {moved:.1e}")


def _ids(embedder: SentenceTransformer, text: str) -> list[int]:
    """The token ids of one text, tokenized as in `encode`."""
    ids: torch.Tensor = embedder.preprocess([text])["input_ids"]
    return ids[0].tolist()
