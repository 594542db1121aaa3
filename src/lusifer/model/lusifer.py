"""The LUSIFER model: a multilingual encoder, a connector and a bidirectional LLM (arXiv 2501.00874, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import ModelOutput, cached_file

from lusifer.errors import LusiferError, ModelFolderError, UsageError
from lusifer.io import weights
from lusifer.io.files import read_json
from lusifer.model import adapters
from lusifer.model import delta as deltas
from lusifer.model.bases import backbones
from lusifer.model.config import LusiferConfig
from lusifer.model.connector import BaseConnector, Connector, ConnectorOutput
from lusifer.model.delta import Delta


@dataclass
class LusiferOutput(ModelOutput):
    """`embedding` (B, d), float32, not scaled; the LLM's `last_hidden_state` (B, L', d) and its mask (B, L')."""

    embedding: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None
    attention_mask: torch.Tensor | None = None


class LusiferPreTrainedModel(PreTrainedModel):
    """The settings of both LUSIFER classes for transformers."""

    config_class = LusiferConfig
    config: LusiferConfig
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # Connector and projection stay float32 when a model with a half-precision LLM is loaded.
    _keep_in_fp32_modules_strict: ClassVar[list[str]] = ["connector", "output_projection"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialize the connector and the projection; the backbones initialize themselves.

        Linear layers keep torch's initialization, as published. Soft tokens and latents start at the scale of word
        embeddings (0.02) instead of the published 1.0, which is far from the LLM's word embeddings.
        """
        if isinstance(module, (nn.Linear, nn.LayerNorm)):
            module.reset_parameters()
        elif isinstance(module, nn.MultiheadAttention):
            module._reset_parameters()
        elif isinstance(module, Connector) and module.soft_tokens is not None:
            module.soft_tokens.normal_(std=0.02)
        elif isinstance(module, BaseConnector):
            module.init_weights()


class LusiferModel(LusiferPreTrainedModel):
    """The LUSIFER model: token ids of the encoder's tokenizer to one vector a text."""

    delta: Delta | None = None
    """The delta that is saved in place of all weights; a training run sets it."""

    def __init__(self, config: LusiferConfig) -> None:
        super().__init__(config)
        d = config.llm.hidden_size
        self.encoder = backbones.from_config(config.encoder, "encoder")
        self.connector = Connector(config)
        self.llm = backbones.from_config(config.llm, "llm")
        self.output_projection = None
        if config.output_projection:
            self.output_projection = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d))
        for backbone, dtype in (config.tower_dtypes or {}).items():
            # transformers loads each weight in the dtype that the module has.
            backbones.cast_weights(getattr(self, backbone), getattr(torch, dtype))
        self.post_init()

    @classmethod
    def around(cls, config: LusiferConfig, encoder: nn.Module, llm: nn.Module) -> LusiferModel:
        """Make a model of two loaded backbones, with uninitialized connector and projection (float32, on the CPU).

        Args:
            config: The configuration. It gets the configurations of the backbones.
            encoder: The encoder.
            llm: The LLM.
        """
        with backbones.described():  # allocates no memory for the backbones, which exist already
            model = cls(config)
        for part in (model.connector, model.output_projection):
            if part is not None:
                part.to_empty(device="cpu").to(torch.float32)
        return model.with_backbones(encoder, llm)

    def with_backbones(self, encoder: nn.Module, llm: nn.Module) -> LusiferModel:
        """Replace the backbones of this model, and their configurations, by loaded ones.

        Args:
            encoder: The encoder.
            llm: The LLM.

        Returns:
            This model.
        """
        self.encoder, self.llm = encoder, llm
        self.config.encoder, self.config.llm = encoder.config, llm.config
        if self.config.bidirectional:
            llm.config.is_causal = False
        return self

    @classmethod
    def from_pretrained(cls, name_or_path: Any = None, *args: Any, **kwargs: Any) -> LusiferModel:
        """Load a model as transformers does, each backbone in the dtype of its file. A delta loads its bases too.

        Args:
            name_or_path: A folder, or an id on the Hub.
            *args: As in transformers.
            **kwargs: As in transformers. A `dtype` other than "auto" applies to both backbones; connector and
                projection stay float32. For a delta also `bases` (backbone -> path of its base) and `merge_adapters`
                (False keeps the adapters of a half-precision backbone as separate layers).

        Raises:
            ModelFolderError: The base of a delta is missing or has changed.
            UsageError: An argument does not apply to this kind of model.
        """
        config = kwargs.get("config")
        if config is None and name_or_path is not None:
            config = cls.config_class.from_pretrained(name_or_path, **_lookup(kwargs), **_of_config(kwargs))
        if getattr(config, "bases", None):
            loaded = cls._from_delta(name_or_path, **{**kwargs, "config": config})
        else:  # transformers reads the configuration itself, because arguments may change it
            if kwargs.get("bases"):
                raise UsageError(f"bases: {name_or_path} is no delta: leave the argument out")
            own = {name: value for name, value in kwargs.items() if name not in ("bases", "merge_adapters")}
            loaded = super().from_pretrained(name_or_path, *args, **own)
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # with output_loading_info
        dtype = kwargs.get("dtype", kwargs.get("torch_dtype"))
        for backbone in adapters.BACKBONES if dtype not in (None, "auto") else ():
            backbones.cast_weights(getattr(model, backbone), getattr(torch, dtype) if isinstance(dtype, str) else dtype)
        return loaded

    @classmethod
    def _from_delta(cls, name_or_path: str, config: LusiferConfig, **kwargs: Any) -> Any:
        """Load a delta and its bases."""
        for name in ("state_dict", "quantization_config"):
            if kwargs.get(name) is not None:
                raise UsageError(f"{name}: not possible for a delta: run `lusifer export` and load its output")
        files = _weight_files(name_or_path, _lookup(kwargs))
        kernel = kwargs.get("attn_implementation") or getattr(config, "_attn_implementation", None)
        device = kwargs.get("device_map") or "cpu"
        device = device.get("") if isinstance(device, dict) and len(device) == 1 else device
        try:
            device = str(torch.device(device))
        except (RuntimeError, TypeError):  # "auto", or a device for each part
            raise UsageError(
                f"device_map={device!r}: a delta is loaded on one device: give its name, such as 'cuda:0'"
            ) from None
        plain = LusiferConfig.from_dict(config.to_dict() | {"bases": None, "adapters": None})
        model = deltas.load(
            partial(cls.around, plain),
            config,
            weights.tensors([Path(file) for file in files], deltas.ADVICE),
            where=str(name_or_path),
            paths=kwargs.get("bases"),
            merge=kwargs.get("merge_adapters", True),
            device=device,
            attn_implementation=kernel,
        )
        model.config._attn_implementation = kernel or model.llm.config._attn_implementation
        # Nothing is missing: `deltas.load` raises an error otherwise.
        info = dict.fromkeys(("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"), [])
        return (model, info) if kwargs.get("output_loading_info") else model

    def train(self, mode: bool = True) -> LusiferModel:
        """Switch the mode as in torch, but keep a frozen backbone in evaluation mode: its dropout would add noise."""
        super().train(mode)
        for backbone in adapters.BACKBONES:
            module = getattr(self, backbone)
            if not any(p.requires_grad for p in module.parameters()):
                module.eval()
                for layer in module.modules():
                    if isinstance(layer, GradientCheckpointingLayer) and layer.gradient_checkpointing:
                        layer.training = mode  # the layer checkpoints only if set; its submodules stay in evaluation
        return self

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> LusiferOutput:
        """Embed a batch of texts.

        Args:
            input_ids: Ids of the encoder's tokenizer (B, L), int64, padded on either side.
            attention_mask: 1 for a token, 0 for padding (B, L). None is a batch without padding.
            **kwargs: Ignored. Tokenizers add keys such as `token_type_ids`.

        Returns:
            The embedding (B, d), float32, and the LLM's last hidden states (B, L', d) with their mask.

        Raises:
            UsageError: A text has more tokens than the backbones can read.
        """
        longest = self.config.max_position_embeddings
        if input_ids.shape[1] > longest:
            raise UsageError(
                f"text of {input_ids.shape[1]} tokens: the backbones read at most {longest}: set max_seq_length to "
                f"{longest} or less"
            )
        read = self.soft_prompt(input_ids, attention_mask, self.config.pad_to_multiple_of)
        hidden_states = self.run_llm(*read)
        embedding = pool(hidden_states, read.attention_mask, self.config.pooling)
        if self.output_projection is not None:
            embedding = self.output_projection(embedding.to(next(self.output_projection.parameters()).dtype))
        # float32, because the length of a vector that is scaled in half precision is off by up to half a percent.
        return LusiferOutput(embedding.float(), hidden_states, read.attention_mask)

    def soft_prompt(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, pad_to_multiple_of: int | None = None
    ) -> ConnectorOutput:
        """Run the encoder and the connector, which give the LLM's input embeddings.

        Args:
            input_ids: (B, L), int64.
            attention_mask: (B, L). None is a batch without padding.
            pad_to_multiple_of: Pad L to a multiple of this first. It only matters with
                `soft_token_position="padding"`.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        elif not torch.jit.is_tracing():  # `Int8Model` moves the padding before it calls its graph
            input_ids, attention_mask = right_padded(input_ids, attention_mask)
        if pad_to_multiple_of:
            missing = -input_ids.shape[1] % pad_to_multiple_of
            pad_id = self.config.encoder.pad_token_id or 0
            input_ids = nn.functional.pad(input_ids, (0, missing), value=pad_id)
            attention_mask = nn.functional.pad(attention_mask, (0, missing))
        # With gradient checkpointing, a frozen encoder would compute gradients that are not used.
        trains = any(parameter.requires_grad for parameter in self.encoder.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and trains):
            states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mapping_dtype = next(self.connector.parameters()).dtype
        return self.connector(states.to(mapping_dtype), attention_mask)

    def run_llm(
        self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor, position_ids: torch.Tensor
    ) -> torch.Tensor:
        """Run the LLM without its LM head and without a cache.

        Args:
            inputs_embeds: (B, L', d).
            attention_mask: 1 and 0 (B, L'), or an additive mask (B, 1, L', L').
            position_ids: (B, L'), int64.

        Returns:
            The last hidden states (B, L', d) in the dtype of the LLM.
        """
        kwargs = {"use_cache": False} if backbones.is_decoder(self.config.llm) else {}
        # The connector's output is float32 and the LLM may be in half precision.
        return self.llm(
            inputs_embeds=inputs_embeds.to(self.llm.dtype),
            attention_mask=attention_mask,
            position_ids=position_ids,
            **kwargs,
        ).last_hidden_state

    def save_pretrained(
        self, save_directory: str, state_dict: dict[str, torch.Tensor] | None = None, **kwargs: Any
    ) -> None:
        """Save a plain model: adapters are merged in the files, not in this model. With `delta`, save the delta.

        Args:
            save_directory: The folder to write.
            state_dict: As in transformers; ignored for a model with adapters or a delta.
            **kwargs: As in transformers.

        Raises:
            LusiferError: The tensors are not those of a plain model, so the folder could not be loaded.
        """
        dtypes = {backbone: getattr(self, backbone).dtype for backbone in adapters.BACKBONES}
        settings = self.delta.settings() if self.delta else {"bases": None, "adapters": None}
        changed = bool(settings["bases"]) or any(adapters.adapted_layers(self))
        if changed:
            state_dict = self.delta.state_dict(self) if settings["bases"] else adapters.merged_state_dict(self)
            merged = [
                backbone for backbone in adapters.adapted_backbones(self) if backbone not in (settings["bases"] or ())
            ]
            dtypes |= dict.fromkeys(merged, torch.float32)
        self.config.tower_dtypes = {backbone: str(dtype).removeprefix("torch.") for backbone, dtype in dtypes.items()}
        for backbone, dtype in self.config.tower_dtypes.items():
            config = getattr(self.config, backbone)
            config.dtype = dtype
            if Path(config.name_or_path).is_dir():
                config.name_or_path = ""  # a local path is private; an id on the Hub stays
        if state_dict is None or changed:
            self._refuse_unloadable(state_dict or self.state_dict(), settings)
        self.config.update(settings)
        # While this flag is set, transformers writes the adapters alone, under names that a plain model does not have.
        marked, self._hf_peft_config_loaded = self._hf_peft_config_loaded, False
        if marked:  # after loading a folder of adapters alone, transformers would also restore its tensor names
            kwargs["save_original_format"] = False
        try:
            super().save_pretrained(save_directory, state_dict=state_dict, **kwargs)
        finally:
            self._hf_peft_config_loaded = marked
            self.config.update({"bases": None, "adapters": None})
        writes = self.should_save_on_this_rank(kwargs.get("is_main_process", True))  # only the first process writes
        if writes and not any(Path(save_directory).glob("*.safetensors")):
            raise LusiferError(f"{save_directory}: no weights were written: save the model again")

    def _refuse_unloadable(self, tensors: dict[str, torch.Tensor], settings: dict[str, Any]) -> None:
        config = LusiferConfig.from_dict(self.config.to_dict() | settings)
        with backbones.described():
            expected = deltas.expected(type(self)(config), config)
        wrong = weights.misfit(expected, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
        if wrong:
            raise LusiferError(
                f"the model is not saved, because the files could not be loaded: tensors {wrong} compared with a plain "
                "model: remove the modules that were added in or around its parts"
            )

    def get_input_embeddings(self) -> nn.Module:
        """Return the encoder's word embeddings, which `input_ids` refer to."""
        return self.encoder.get_input_embeddings()


def _lookup(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Select the arguments of `from_pretrained` that say where to find a model."""
    names = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
    return {name: kwargs[name] for name in names if kwargs.get(name) is not None}


def _of_config(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Select the arguments of `from_pretrained` that change the configuration, but not its bases or backbones."""
    own = set(LusiferConfig.__annotations__) - {"encoder", "llm", "bases", "adapters", "tower_dtypes"}
    return {name: kwargs[name] for name in own & kwargs.keys()}


def _weight_files(name_or_path: str, lookup: dict[str, Any]) -> list[str]:
    """Find the safetensors files of a folder or a repository: one file, or those in its index."""
    index = cached_file(name_or_path, weights.INDEX, **lookup, _raise_exceptions_for_missing_entries=False)
    if index is None:
        return [cached_file(name_or_path, weights.WEIGHTS, **lookup)]
    named = read_json(Path(index), "copy the folder again", ModelFolderError, dict)["weight_map"]
    return [cached_file(name_or_path, file, **lookup) for file in sorted(set(named.values()))]


def right_padded(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Move padding to the right, because some encoders count positions from the left.

    Args:
        input_ids: (B, L), padded anywhere.
        attention_mask: (B, L).

    Returns:
        Both, reordered; unchanged if the padding is on the right.
    """
    order = (attention_mask != 0).int().argsort(dim=1, descending=True, stable=True)
    return input_ids.gather(1, order), attention_mask.gather(1, order)


def pool(hidden_states: torch.Tensor, attention_mask: torch.Tensor, method: str) -> torch.Tensor:
    """Pool hidden states over the real positions, including those of an instruction, as published.

    Args:
        hidden_states: (B, L, d), without NaN or infinity, also at padding.
        attention_mask: 1 for a real position (B, L), at least one a row.
        method: "mean"; "weightedmean" (position i has the weight i, after SGPT, arXiv 2202.08904); "cls" (the first
            real position); "lasttoken" (the last one).

    Returns:
        (B, d) in the dtype of `hidden_states`.

    Raises:
        ValueError: The method is unknown.
    """
    mask = attention_mask.to(torch.bool)
    if method in ("cls", "lasttoken"):
        order = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
        index = order.masked_fill(~mask, -1).amax(1) if method == "lasttoken" else mask.long().argmax(1)
        return hidden_states[torch.arange(len(index), device=mask.device), index]
    if method not in ("mean", "weightedmean"):
        raise ValueError(f"pooling={method!r} is unknown: use mean, weightedmean, cls or lasttoken")
    weights = mask.float()
    if method == "weightedmean":
        weights = weights * mask.long().cumsum(dim=1)
    weights = weights / weights.sum(dim=1, keepdim=True)
    # A matrix product with the weights needs no float32 copy of the states.
    return torch.bmm(weights.unsqueeze(1).to(hidden_states.dtype), hidden_states).squeeze(1)
