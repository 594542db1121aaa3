"""The configuration of a LUSIFER model: two backbones, a connector and a pooling."""

from __future__ import annotations

import importlib
from bisect import bisect_right
from typing import Any, ClassVar

from pydantic import ValidationError
from transformers import AutoConfig, PreTrainedConfig

from lusifer.io.bases import check_positions_and_dtypes, check_settings
from lusifer.model.connector import CONNECTORS, ConnectorSettings

POOLINGS = ("mean", "weightedmean", "cls", "lasttoken")
IF_SET = ("bases", "adapters", "space", "matryoshka_dims")
"""Settings that are written to `config.json` only if they are set; only deltas have the first two."""


class LusiferConfig(PreTrainedConfig):
    """Configuration of [`LusiferModel`][lusifer.model.lusifer.LusiferModel] (paper section 3).

    Args:
        encoder: Configuration of the multilingual encoder.
        llm: Configuration of the English-centric LLM (a decoder, or an encoder-style embedder).
        connector_type: Name of a registered connector (`lusifer.model.connector.CONNECTORS`).
        connector_kwargs: Settings of that connector, as in its `Settings`. A missing setting has its default.
        num_soft_tokens: Number of trainable embeddings after the text in the LLM's input.
        pooling: One of `POOLINGS`, over the LLM's last hidden states.
        output_projection: Whether d -> d, ReLU, d -> d follows the pooling.
        bidirectional: Whether the LLM uses bidirectional attention, as in the paper.
        soft_token_position: "text" counts positions over real tokens only, so that a vector does not depend on its
            batch. "padding" also counts the padding, as the published code does, and is for comparison with it.
        pad_to_multiple_of: Pad the encoder's input to this multiple before encoding (published code: 8). It only
            matters with `soft_token_position="padding"`.
        alignment_bos: Whether alignment puts the LLM's BOS before the soft prompt.
        tower_dtypes: "encoder" and "llm" -> dtype of the weights, as in `{"encoder": "float32", "llm": "bfloat16"}`.
            `save_pretrained` writes it, because `dtype` has one value for both. None gives both the dtype of the model.
        bases: Only in a delta: backbone -> its base, whose weights are not in the folder (`lusifer.model.delta`).
        adapters: Only in a delta: the adapters on these bases in the order of training (name, tower, r, alpha,
            targets).
        space: `name` and `identity` of the embedder whose vectors the last stage distilled, if it did, and its
            `revision` if the name is an id on the Hub. It changes no vector.
        matryoshka_dims: The shorter dimensions that the last stage trained, if it did. It changes no vector.
    """

    model_type = "lusifer"
    sub_configs: ClassVar[dict[str, type]] = {"encoder": AutoConfig, "llm": AutoConfig}

    encoder: PreTrainedConfig | dict | None = None
    llm: PreTrainedConfig | dict | None = None
    connector_type: str = "ff"
    connector_kwargs: dict[str, Any] | None = None
    num_soft_tokens: int = 0
    pooling: str = "mean"
    output_projection: bool = True
    bidirectional: bool = True
    soft_token_position: str = "text"
    pad_to_multiple_of: int | None = None
    alignment_bos: bool = True
    tower_dtypes: dict[str, str] | None = None
    bases: dict[str, dict[str, Any]] | None = None
    adapters: list[dict[str, Any]] | None = None
    space: dict[str, str] | None = None
    matryoshka_dims: list[int] | None = None
    hidden_size: int | None = None
    max_position_embeddings: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Make objects of the two sub-configurations and check all settings.

        Raises:
            ValueError: A setting is unknown or out of range, or is one of an older version with other vectors.
        """
        if kwargs.get("include_prompt", True) is not True:  # older folders have true, which is always done now
            raise ValueError(
                "include_prompt: false: this version cannot leave the prompt out of the mean, so the vectors would "
                "differ: train the model again"
            )
        if kwargs.pop("residual", False) is not False:  # older folders have false
            raise ValueError(
                "residual: true: this version cannot add the LLM's input to the vector, so the vectors would differ: "
                "train the model again"
            )
        # Importing the model registers it, so that AutoModel finds it for this configuration. It cannot be imported at
        # module level: this file may be imported while peft, which the model needs, is being imported.
        importlib.import_module("lusifer.model.lusifer")
        self.encoder = _as_config(self.encoder, "xlm-roberta")
        self.llm = _as_config(self.llm, "mistral")
        self.connector_kwargs = dict(self.connector_kwargs or {})
        self.hidden_size = self.llm.hidden_size
        self._check()
        self.max_position_embeddings = self.max_position_embeddings or input_limit(self)
        if self.bidirectional:
            # Read by the attention masks of transformers >= 5.2: no modelling file is copied.
            self.llm.is_causal = False
        super().__post_init__(**kwargs)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as in transformers, without those of `IF_SET` that are not set, as in older folders."""
        return {key: value for key, value in super().to_dict().items() if key not in IF_SET or value is not None}

    @property
    def connector_settings(self) -> ConnectorSettings:
        """`connector_kwargs` as a checked object, with defaults.

        Raises:
            ValueError: The connector does not have a setting or does not allow its value.
        """
        try:
            return CONNECTORS[self.connector_type].Settings(**self.connector_kwargs)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise ValueError(f"connector_kwargs of {self.connector_type}: {key}: {first['msg']}") from error

    def _check(self) -> None:
        if self.connector_type not in CONNECTORS:
            raise ValueError(
                f"connector_type={self.connector_type!r} is unknown: use one of {', '.join(CONNECTORS)}; for a "
                "connector of your own, import the file that registers it first"
            )
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling={self.pooling!r} is unknown: use one of {', '.join(POOLINGS)}")
        if self.num_soft_tokens < 0:
            raise ValueError(f"num_soft_tokens={self.num_soft_tokens}: must be 0 or more")
        _ = self.connector_settings
        check_settings({name: getattr(self, name) for name in IF_SET})
        check_positions_and_dtypes(vars(self))


def _as_config(value: PreTrainedConfig | dict | None, default_type: str) -> PreTrainedConfig:
    """Make a configuration object from the content of `config.json`; only `LusiferConfig()` needs the default type."""
    if isinstance(value, PreTrainedConfig):
        return value
    values = dict(value or {})
    return AutoConfig.for_model(values.pop("model_type", default_type), **values)


def input_limit(config: LusiferConfig) -> int:
    """Compute the maximum number of the encoder's tokens, special tokens included, that both backbones can read.

    XLM-R counts positions from `pad_token_id + 1`, so two positions are not available. T5 has no table of positions
    and no limit of its own.
    """
    encoder = config.encoder
    longest = getattr(encoder, "max_position_embeddings", None) or getattr(encoder, "n_positions", None) or 512
    if encoder.model_type in ("xlm-roberta", "roberta"):
        longest -= encoder.pad_token_id + 1
    llm_positions = getattr(config.llm, "max_position_embeddings", None)
    if llm_positions:
        room = llm_positions - config.num_soft_tokens
        connector, settings = CONNECTORS[config.connector_type], config.connector_settings
        if connector.positions(settings, 1) <= room:  # else even a short text does not fit
            lengths = range(1, longest + 1)
            longest = bisect_right(lengths, room, key=lambda tokens: connector.positions(settings, tokens))
    return max(longest, 1)
