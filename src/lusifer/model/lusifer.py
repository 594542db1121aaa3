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
    """`embedding` (B, d), float32, not normalised; the LLM's `last_hidden_state` (B, L', d) and mask (B, L')."""

    embedding: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None
    attention_mask: torch.Tensor | None = None


class LusiferPreTrainedModel(PreTrainedModel):
    """What transformers needs to know about both LUSIFER classes."""

    config_class = LusiferConfig
    config: LusiferConfig
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # A folder with a half-precision LLM keeps its float32 connector and projection when it is loaded.
    _keep_in_fp32_modules_strict: ClassVar[list[str]] = ["connector", "output_projection"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise the parts that are ours; the backbones initialise themselves.

        Linear layers keep torch's own initialisation, as published. Soft tokens and latents start at the scale of
        word embeddings (0.02) rather than at the published 1.0, which no word of the LLM has.
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
    """Text ids of the encoder's tokenizer in, one vector a text out."""

    delta: Delta | None = None
    """While a run trains it: what is saved of it, without the weights of its bases."""

    def __init__(self, config: LusiferConfig) -> None:
        super().__init__(config)
        d = config.llm.hidden_size
        self.encoder = backbones.from_config(config.encoder, "encoder")
        self.connector = Connector(config)
        self.llm = backbones.from_config(config.llm, "llm")
        self.output_projection = None
        if config.output_projection:
            self.output_projection = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d))
        for tower, dtype in (config.tower_dtypes or {}).items():
            # transformers loads each weight in the number format that the module asks for.
            backbones.cast_weights(getattr(self, tower), getattr(torch, dtype))
        self.post_init()

    @classmethod
    def around(cls, config: LusiferConfig, encoder: nn.Module, llm: nn.Module) -> LusiferModel:
        """A model around two loaded backbones; connector and projection are float32 on the CPU and hold no numbers yet.

        `config` has the configurations of the backbones afterwards.
        """
        with backbones.described():  # the backbones' weights exist already: allocate nothing for them a second time
            model = cls(config)
        for part in (model.connector, model.output_projection):
            if part is not None:
                part.to_empty(device="cpu").to(torch.float32)
        return model.with_towers(encoder, llm)

    def with_towers(self, encoder: nn.Module, llm: nn.Module) -> LusiferModel:
        """This model with two loaded backbones, and their configurations, in the place of its own."""
        self.encoder, self.llm = encoder, llm
        self.config.encoder, self.config.llm = encoder.config, llm.config
        if self.config.bidirectional:
            llm.config.is_causal = False
        return self

    @classmethod
    def from_pretrained(cls, name_or_path: Any = None, *args: Any, **kwargs: Any) -> LusiferModel:
        """Load as transformers does, each tower in the number format it was saved in.

        A `dtype` other than "auto" goes to both towers; connector and projection stay in float32. Of a delta
        (`lusifer.model.delta`) the bases are looked up, and two more arguments count: `bases`, tower -> where its base
        lies now, and `merge_adapters`, False to keep those on a tower in half precision beside it.

        Raises:
            ModelFolderError: The base of a delta is not to be had, or is another one.
            UsageError: An argument that a delta, or a whole model, has no use for.
        """
        config = kwargs.get("config")
        if config is None and name_or_path is not None:
            config = cls.config_class.from_pretrained(name_or_path, **_lookup(kwargs), **_of_config(kwargs))
        if getattr(config, "bases", None):
            loaded = cls._from_delta(name_or_path, **{**kwargs, "config": config})
        else:  # transformers reads the configuration itself: arguments may change it
            if kwargs.get("bases"):
                raise UsageError(f"bases: {name_or_path} holds the weights of its bases: leave the argument out")
            own = {name: value for name, value in kwargs.items() if name not in ("bases", "merge_adapters")}
            loaded = super().from_pretrained(name_or_path, *args, **own)
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # with output_loading_info
        dtype = kwargs.get("dtype", kwargs.get("torch_dtype"))
        for tower in adapters.TOWERS if dtype not in (None, "auto") else ():
            backbones.cast_weights(getattr(model, tower), getattr(torch, dtype) if isinstance(dtype, str) else dtype)
        return loaded

    @classmethod
    def _from_delta(cls, name_or_path: str, config: LusiferConfig, **kwargs: Any) -> Any:
        """Put a delta and its bases together."""
        for name in ("state_dict", "quantization_config"):
            if kwargs.get(name) is not None:
                raise UsageError(f"{name}: a model without its bases takes none: save it whole first")
        files = _weight_files(name_or_path, _lookup(kwargs))
        kernel = kwargs.get("attn_implementation") or getattr(config, "_attn_implementation", None)
        device = kwargs.get("device_map") or "cpu"
        device = device.get("") if isinstance(device, dict) and len(device) == 1 else device
        try:
            device = str(torch.device(device))
        except (RuntimeError, TypeError):  # "auto", or a device for each part
            raise UsageError(
                f"device_map={device!r}: a model without its bases goes to one device: name it, as in 'cuda:0'"
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
        # All of it was found: `deltas.load` refuses anything else.
        info = dict.fromkeys(("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"), [])
        return (model, info) if kwargs.get("output_loading_info") else model

    def train(self, mode: bool = True) -> LusiferModel:
        """As in torch, but a tower of which nothing trains stays in evaluation mode: its dropout would be noise."""
        super().train(mode)
        for tower in adapters.TOWERS:
            module = getattr(self, tower)
            if not any(p.requires_grad for p in module.parameters()):
                module.eval()
                for layer in module.modules():
                    if isinstance(layer, GradientCheckpointingLayer) and layer.gradient_checkpointing:
                        layer.training = mode  # checkpoints only where this is set; what is in it stays without noise
        return self

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> LusiferOutput:
        """Embed a batch of texts.

        Args:
            input_ids: (B, L), ids of the encoder's tokenizer, padded on either side.
            attention_mask: (B, L), 1 for a real token; all ones if left out.
            **kwargs: Accepted and ignored (tokenizers add keys such as `token_type_ids`, of one segment here).

        Returns:
            The embedding (B, d) and the LLM's last hidden states.

        Raises:
            UsageError: A text has more tokens than the backbones have positions.
        """
        longest = self.config.max_position_embeddings
        if input_ids.shape[1] > longest:
            raise UsageError(
                f"a text of {input_ids.shape[1]} tokens, and the backbones read {longest}: set max_seq_length to "
                f"{longest} or less"
            )
        read = self.soft_prompt(input_ids, attention_mask, self.config.pad_to_multiple_of)
        hidden_states = self.run_llm(*read)
        embedding = pool(hidden_states, read.attention_mask, self.config.pooling)
        if self.output_projection is not None:
            embedding = self.output_projection(embedding.to(next(self.output_projection.parameters()).dtype))
        # Brought to length 1 in half precision, a vector is off by up to half a per cent.
        return LusiferOutput(embedding.float(), hidden_states, read.attention_mask)

    def soft_prompt(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, pad_to_multiple_of: int | None = None
    ) -> ConnectorOutput:
        """Encoder and connector: what the LLM will read in place of word embeddings.

        Ids and mask are (B, L); L is padded up to a multiple of `pad_to_multiple_of` first, which matters only to
        `soft_token_position="padding"`. Gives embeddings (B, L', d) with mask and position ids (B, L').
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        elif not torch.jit.is_tracing():  # the int8 graph gets its input sorted
            input_ids, attention_mask = right_padded(input_ids, attention_mask)
        if pad_to_multiple_of:
            missing = -input_ids.shape[1] % pad_to_multiple_of
            pad_id = self.config.encoder.pad_token_id or 0
            input_ids = nn.functional.pad(input_ids, (0, missing), value=pad_id)
            attention_mask = nn.functional.pad(attention_mask, (0, missing))
        # Checkpoints would make a frozen encoder compute gradients that nobody reads.
        trains = any(parameter.requires_grad for parameter in self.encoder.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and trains):
            states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mapping_dtype = next(self.connector.parameters()).dtype
        return self.connector(states.to(mapping_dtype), attention_mask)

    def run_llm(
        self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor, position_ids: torch.Tensor
    ) -> torch.Tensor:
        """The LLM's last hidden states (B, L', d): no LM head, no kept layers, no cache.

        The mask is (B, L') of 0 and 1, or (B, 1, L', L') and additive; position ids are (B, L').
        """
        kwargs = {"use_cache": False} if backbones.is_decoder(self.config.llm) else {}
        # The LLM's own dtype: a bf16 LLM takes a float32 connector's output.
        return self.llm(
            inputs_embeds=inputs_embeds.to(self.llm.dtype),
            attention_mask=attention_mask,
            position_ids=position_ids,
            **kwargs,
        ).last_hidden_state

    def save_pretrained(
        self, save_directory: str, state_dict: dict[str, torch.Tensor] | None = None, **kwargs: Any
    ) -> None:
        """Write a plain model: adapters, if there are any, are merged in what is written (not in this model).

        While `delta` is set, that is written, without the weights of the bases.

        Arguments are those of `transformers.PreTrainedModel.save_pretrained`, but for `state_dict` with adapters.

        Raises:
            LusiferError: Its tensors are not those of a plain model: what was written could not be loaded.
        """
        dtypes = {tower: getattr(self, tower).dtype for tower in adapters.TOWERS}
        settings = self.delta.settings() if self.delta else {"bases": None, "adapters": None}
        changed = bool(settings["bases"]) or any(adapters.adapted_layers(self))
        if changed:
            state_dict = self.delta.state_dict(self) if settings["bases"] else adapters.merged_state_dict(self)
            merged = [tower for tower in adapters.adapted_towers(self) if tower not in (settings["bases"] or ())]
            dtypes |= dict.fromkeys(merged, torch.float32)
        self.config.tower_dtypes = {tower: str(dtype).removeprefix("torch.") for tower, dtype in dtypes.items()}
        for tower, dtype in self.config.tower_dtypes.items():
            config = getattr(self.config, tower)
            config.dtype = dtype
            if Path(config.name_or_path).is_dir():
                config.name_or_path = ""  # where a base lay on this machine is nobody's business; a hub name stays
        if state_dict is None or changed:
            self._refuse_unloadable(state_dict or self.state_dict(), settings)
        self.config.update(settings)
        # With transformers' own mark of adapters it would write these alone, under names that are in no plain model.
        marked, self._hf_peft_config_loaded = self._hf_peft_config_loaded, False
        if marked:  # loaded from a folder of adapters alone, tensors would get the names that they have there
            kwargs["save_original_format"] = False
        try:
            super().save_pretrained(save_directory, state_dict=state_dict, **kwargs)
        finally:
            self._hf_peft_config_loaded = marked
            self.config.update({"bases": None, "adapters": None})
        writes = self.should_save_on_this_rank(kwargs.get("is_main_process", True))  # of several processes the first
        if writes and not any(Path(save_directory).glob("*.safetensors")):
            raise LusiferError(f"{save_directory}: no weights were written: save the model again")

    def _refuse_unloadable(self, tensors: dict[str, torch.Tensor], settings: dict[str, Any]) -> None:
        config = LusiferConfig.from_dict(self.config.to_dict() | settings)
        with backbones.described():
            expected = deltas.expected(type(self)(config), config)
        wrong = weights.misfit(expected, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
        if wrong:
            raise LusiferError(
                f"nothing is written, for it could not be loaded: tensors {wrong} compared with a plain model: take "
                "out what was put into or around its parts"
            )

    def get_input_embeddings(self) -> nn.Module:
        """The word embeddings that read `input_ids`: the encoder's."""
        return self.encoder.get_input_embeddings()


def _lookup(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Of the arguments of `from_pretrained` those that say where and in which state a model is looked up."""
    names = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
    return {name: kwargs[name] for name in names if kwargs.get(name) is not None}


def _of_config(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Of the arguments of `from_pretrained` those that change the configuration, and not what is built on it."""
    own = set(LusiferConfig.__annotations__) - {"encoder", "llm", "bases", "adapters", "tower_dtypes"}
    return {name: kwargs[name] for name in own & kwargs.keys()}


def _weight_files(name_or_path: str, lookup: dict[str, Any]) -> list[str]:
    """The safetensors files of a folder or a repository: one, or those that its index names."""
    index = cached_file(name_or_path, weights.INDEX, **lookup, _raise_exceptions_for_missing_entries=False)
    if index is None:
        return [cached_file(name_or_path, weights.WEIGHTS, **lookup)]
    named = read_json(Path(index), "copy the folder again", ModelFolderError, dict)["weight_map"]
    return [cached_file(name_or_path, file, **lookup) for file in sorted(set(named.values()))]


def right_padded(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Put padding, wherever it stands, behind the tokens: encoders that count positions from the left need it there.

    Both are (B, L), as given. What is padded on the right already stays as it is.
    """
    order = (attention_mask != 0).int().argsort(dim=1, descending=True, stable=True)
    return input_ids.gather(1, order), attention_mask.gather(1, order)


def pool(hidden_states: torch.Tensor, attention_mask: torch.Tensor, method: str) -> torch.Tensor:
    """Pool hidden states over the real positions, those of an instruction included, as published.

    Args:
        hidden_states: (B, L, d), finite everywhere.
        attention_mask: (B, L), 1 for a real position; at least one a row.
        method: "mean"; "weightedmean" (position i weighs i, after SGPT, arXiv 2202.08904); "cls" (the first real
            position); "lasttoken" (the last one).

    Returns:
        (B, d) in the dtype of `hidden_states`.

    Raises:
        ValueError: An unknown method.
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
    # A product with the weights: no float32 copy of the states, and masked positions cost no branch.
    return torch.bmm(weights.unsqueeze(1).to(hidden_states.dtype), hidden_states).squeeze(1)
