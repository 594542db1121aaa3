"""A model folder as training writes it, of random weights: for tests that need one and not how it came about."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def tiny_embedder(bases: tuple[Path, Path], limit: int = 64, **settings: Any) -> Any:
    """A SentenceTransformer around tiny XLM-R and tiny Mistral; `settings` are fields of LusiferConfig."""
    from lusifer.embedder.assemble import assemble
    from lusifer.model import build
    from lusifer.model.build import read_tokenizer

    encoder, llm = (str(base) for base in bases)
    model = build.join(
        build.read_backbone(build.Base(encoder), "encoder"),
        build.read_backbone(build.Base(llm), "llm"),
        **{"num_soft_tokens": 1, **settings},
    )
    return assemble(
        model,
        read_tokenizer(encoder),
        prompts={"query": "", "document": "", "passage": "Find: "},
        max_seq_length=limit,
    )


def tiny_delta(bases: tuple[Any, Any], target: Path, dtype: str = "float32") -> Path:
    """A folder of a model without its bases, with adapters on both backbones that are in a number format."""
    import torch

    from lusifer.embedder import folder
    from lusifer.embedder.assemble import lusifer_model
    from lusifer.io import bases as known_bases
    from lusifer.io import names
    from lusifer.model import adapters
    from lusifer.model.bases import backbones
    from lusifer.model.delta import Delta
    from lusifer.training.recipe.parts import LoRA

    embedder = tiny_embedder(tuple(names.base(str(base)) for base in bases), limit=60)
    model = lusifer_model(embedder)
    paths = dict(zip(adapters.BACKBONES, map(str, bases), strict=True))
    records = {backbone: known_bases.record(base, known_bases.fingerprint(base)) for backbone, base in paths.items()}
    for backbone in paths:
        backbones.cast_weights(getattr(model, backbone), getattr(torch, dtype))
        adapters.attach(model, backbone, 2, 4)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if adapters.is_adapter(name):
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    lora = dict.fromkeys(paths, LoRA(r=2, alpha=4, dropout=0.0))
    model.delta = Delta(records).during(model, "one", dict.fromkeys(paths, "lora"), lora)
    folder.save(embedder, target)
    return target
