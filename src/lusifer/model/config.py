"""The configuration of a LUSIFER model: two backbones, a connector, a pooling."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig

CONNECTORS = ("ff", "embedding_table", "latent_attention", "compress")
POOLINGS = ("mean", "weightedmean", "cls", "lasttoken")
SOFT_TOKEN_POSITIONS = ("text", "padding")
DTYPES = ("float32", "bfloat16", "float16")
# Connectors whose output position i belongs to input token i: only there can the prompt be left out of the mean.
TOKENWISE_CONNECTORS = ("ff", "embedding_table")


class LusiferConfig(PreTrainedConfig):
    """Configuration of [`LusiferModel`][lusifer.model.lusifer.LusiferModel] (paper section 3).

    Args:
        encoder: configuration of the multilingual encoder.
        llm: configuration of the English-centric LLM (a decoder, or an encoder-style embedder).
        connector_type: one of `CONNECTORS`.
        connector_kwargs: settings of that connector (`factor` for compress; `num_latents`, `num_heads`, `add_mean` for
            latent_attention).
        num_soft_tokens: trainable embeddings that follow the text in the LLM's input.
        pooling: one of `POOLINGS`, over the LLM's last hidden states.
        residual: whether what the LLM reads is pooled like its states and added to the vector: a path past the LLM.
        output_projection: whether d -> d, ReLU, d -> d follows the pooling.
        include_prompt: whether the tokens of the prompt take part in the pooling.
        bidirectional: whether the LLM attends in both directions (the method does).
        soft_token_position: "text" counts positions over real tokens only, so a vector does not depend on its batch;
            "padding" counts over the padding too, as the published code does (needed for parity only).
        pad_to_multiple_of: pad the encoder's input to this multiple before encoding (published code: 8); only
            meaningful with `soft_token_position="padding"`.
        alignment_bos: whether alignment puts the LLM's BOS in front of the soft prompt.
        tower_dtypes: "encoder" and "llm" -> number format of its weights, as in `{"encoder": "float32", "llm":
            "bfloat16"}`; `save_pretrained` writes it, since `dtype` holds one format and the towers may differ. None
            gives both the format of the model.
    """

    model_type = "lusifer"
    sub_configs: ClassVar[dict[str, type]] = {"encoder": AutoConfig, "llm": AutoConfig}

    encoder: PreTrainedConfig | dict | None = None
    llm: PreTrainedConfig | dict | None = None
    connector_type: str = "ff"
    connector_kwargs: dict[str, Any] | None = None
    num_soft_tokens: int = 0
    pooling: str = "mean"
    residual: bool = False
    output_projection: bool = True
    include_prompt: bool = True
    bidirectional: bool = True
    soft_token_position: str = "text"
    pad_to_multiple_of: int | None = None
    alignment_bos: bool = True
    tower_dtypes: dict[str, str] | None = None
    hidden_size: int | None = None
    max_position_embeddings: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Turn the two sub-configurations into objects and check the rest.

        Raises:
            ValueError: an unknown connector, pooling or soft token position, or a prompt that cannot be left out.
        """
        self.encoder = _as_config(self.encoder, "xlm-roberta")
        self.llm = _as_config(self.llm, "mistral")
        self.connector_kwargs = dict(self.connector_kwargs or {})
        self.hidden_size = self.llm.hidden_size
        self.max_position_embeddings = self.max_position_embeddings or input_limit(self)
        if self.bidirectional:
            # Read by the attention masks of transformers >= 5.2: no modelling file is copied.
            self.llm.is_causal = False
        self._check()
        super().__post_init__(**kwargs)

    def _check(self) -> None:
        for key, value, allowed in (
            ("connector_type", self.connector_type, CONNECTORS),
            ("pooling", self.pooling, POOLINGS),
            ("soft_token_position", self.soft_token_position, SOFT_TOKEN_POSITIONS),
        ):
            if value not in allowed:
                raise ValueError(f"{key}={value!r} is unknown: use one of {', '.join(allowed)}")
        if not self.include_prompt and self.connector_type not in TOKENWISE_CONNECTORS:
            raise ValueError(
                "include_prompt=False needs a connector with one position a token "
                f"({', '.join(TOKENWISE_CONNECTORS)}), not {self.connector_type!r}"
            )
        if self.num_soft_tokens < 0:
            raise ValueError(f"num_soft_tokens={self.num_soft_tokens} must be 0 or more")
        for tower, dtype in (self.tower_dtypes or {}).items():
            if tower not in ("encoder", "llm") or dtype not in DTYPES:
                raise ValueError(f"tower_dtypes: {tower}: {dtype}: use encoder or llm, and one of {', '.join(DTYPES)}")


def _as_config(value: PreTrainedConfig | dict | None, default_type: str) -> PreTrainedConfig:
    """An object from what `config.json` holds; the default type serves `LusiferConfig()` alone."""
    if isinstance(value, PreTrainedConfig):
        return value
    values = dict(value or {})
    return AutoConfig.for_model(values.pop("model_type", default_type), **values)


def input_limit(config: LusiferConfig) -> int:
    """The most tokens of the encoder's tokenizer that both backbones have positions for.

    Args:
        config: a configuration whose sub-configurations are set.

    Returns:
        Tokens a text, special tokens included. XLM-R counts positions from `pad_token_id + 1`, which costs two; a
        backbone without position table (T5) sets no limit of its own.
    """
    limits = []
    encoder_positions = getattr(config.encoder, "max_position_embeddings", None)
    if encoder_positions:
        offset = config.encoder.pad_token_id + 1 if config.encoder.model_type in ("xlm-roberta", "roberta") else 0
        limits.append(encoder_positions - offset)
    else:
        limits.append(getattr(config.encoder, "n_positions", None) or 512)
    llm_positions = getattr(config.llm, "max_position_embeddings", None)
    if llm_positions and config.connector_type != "latent_attention":
        factor = int((config.connector_kwargs or {}).get("factor", 4)) if config.connector_type == "compress" else 1
        limits.append((llm_positions - config.num_soft_tokens) * factor)
    return max(min(limits), 1)
