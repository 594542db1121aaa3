"""Tensors in safetensors files: find, open, compare and digest them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lusifer.errors import ModelFolderError
from lusifer.io.files import read_json, refuse_pointer, write_file

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TRAINABLE, TRAINABLE_NAMES = "trainable.safetensors", "trainable.json"
"""In a checkpoint: the tensors that train, and their names."""
# In the order of safetensors, which writes tensors of the last dtype first.
_DTYPES = (
    "BOOL", "F4", "F6_E2M3", "F6_E3M2", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "I16", "U16", "F16", "BF16", "I32",
    "U32", "F32", "C64", "F64", "I64", "U64",
)  # fmt: skip
_AT_ONCE = 2**24
"""Bytes of a tensor that are read at once."""


class _Stored(NamedTuple):
    """A tensor in a file: `size` bytes from the position `start` on."""

    name: str
    dtype: str
    shape: list[int]
    file: Path
    start: int
    size: int


def files(folder: Path, advice: str) -> list[Path]:
    """List the files with the weights of a model folder: those that the index names; without an index `WEIGHTS`.

    Args:
        folder: The model folder.
        advice: What to do, the end of the message.

    Raises:
        ModelFolderError: The index is damaged, or names a file outside the folder.
    """
    if not (folder / INDEX).exists():
        return [folder / WEIGHTS]
    index = read_json(folder / INDEX, advice, ModelFolderError)
    named = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
        raise ModelFolderError(f"{folder / INDEX}: damaged, no weight_map; {advice}")
    for name in named.values():
        refuse_outside(name, folder / INDEX, advice)
    return [folder / name for name in sorted(set(named.values()))]


def refuse_outside(name: str, file: Path, advice: str) -> None:
    """Refuse the name of a file or folder that leads out of a model folder.

    Args:
        name: The name, relative to the folder of `file`.
        file: The file that has the name.
        advice: What to do, the end of the message.

    Raises:
        ModelFolderError: The name is absolute, or has `..` in it.
    """
    if Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
        raise ModelFolderError(f"{file}: names {name!r}, which is outside its folder; {advice}")


@contextmanager
def opened(file: Path, advice: str, framework: str = "pt") -> Iterator[Any]:
    """Open a safetensors file with `safetensors.safe_open`.

    Args:
        file: The file.
        advice: What to do, the end of the message.
        framework: "pt" for torch, "np" for numpy, which needs no torch.

    Raises:
        ModelFolderError: The file is missing, truncated or no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise ModelFolderError(f"{file}: missing; {advice}")
    refuse_pointer(file, ModelFolderError)
    try:
        with safe_open(file, framework=framework) as tensors:
            yield tensors
    except SafetensorError as error:
        raise ModelFolderError(f"{file}: truncated or damaged ({error}); {advice}") from error


def tensors(paths: Sequence[Path], advice: str) -> dict[str, Any]:
    """Read all tensors of safetensors files.

    Args:
        paths: The files.
        advice: What to do, the end of the message.

    Returns:
        Name -> torch tensor.

    Raises:
        ModelFolderError: A file is missing, truncated or no safetensors file.
    """
    found = {}
    for path in paths:
        with opened(path, advice) as stored:
            found |= {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    return found


def halve(folder: Path, advice: str) -> None:
    """Convert the weights of a folder to float16 in place; a tensor with a number too large for float16 is unchanged.

    Args:
        folder: The model folder.
        advice: What to do, the end of the message.

    Raises:
        ModelFolderError: As `files`.
    """
    import torch
    from safetensors.torch import load_file, save_file

    for file in files(folder, advice):
        found = load_file(file)
        for name, tensor in found.items():
            half = tensor.half() if tensor.is_floating_point() else tensor
            found[name] = half if torch.isfinite(half).all() else tensor
        with write_file(file) as temporary:
            save_file(found, temporary, metadata={"format": "pt"})


def save_arrays(file: Path, arrays: Mapping[str, Any], about: Mapping[str, str]) -> None:
    """Write numpy arrays and metadata as safetensors; the same content always gives the same bytes.

    The library's own function orders the metadata differently in each process.

    Args:
        file: The file, written directly. For an atomic write give the path of `write_file`.
        arrays: Name -> contiguous array.
        about: The file's `__metadata__`.
    """
    from safetensors.numpy import save

    data = save(dict(arrays), metadata=dict(about))
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin]) | {"__metadata__": dict(sorted(about.items()))}
    words = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    words += b" " * (-len(words) % 8)  # tensors begin at a multiple of eight bytes
    with file.open("wb") as stream:
        stream.write(len(words).to_bytes(8, "little") + words)
        stream.write(memoryview(data)[begin:])


def misfit(wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> str:
    """Describe how tensors differ from the expected ones.

    Args:
        wanted: Name -> shape of the expected tensors.
        found: Name -> shape of the tensors that are there.

    Returns:
        Text such as "2 missing (a, b); 1 unknown (c)"; "" if they agree.
    """
    problems = {
        "missing": wanted.keys() - found.keys(),
        "unknown": found.keys() - wanted.keys(),
        "of another shape": {name for name in wanted.keys() & found.keys() if wanted[name] != found[name]},
    }
    parts = {what: sorted(tensors) for what, tensors in problems.items() if tensors}
    return "; ".join(f"{len(tensors)} {what} ({', '.join(tensors[:3])})" for what, tensors in parts.items())


def digest(paths: Sequence[Path], advice: str) -> str:
    """Compute the SHA-256 of tensors, as of one safetensors file with all of them.

    The split into files and the metadata do not count. Float32 tensors whose numbers all fit into bfloat16 (or else
    float16) count as that dtype: loading a folder in half precision as float32 and saving it gives such tensors.

    Args:
        paths: The safetensors files.
        advice: What to do, the end of the message.

    Returns:
        The digest in hexadecimal digits.

    Raises:
        ModelFolderError: A file is missing, truncated or no safetensors file.
    """
    stored = sorted(
        (tensor for path in paths for tensor in _stored(path, advice)),
        key=lambda tensor: (-_DTYPES.index(tensor.dtype) if tensor.dtype in _DTYPES else 1, tensor.name),
    )
    narrow = _narrow(stored)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in stored:
        start, end = end, end + tensor.size // (2 if narrow else 1)
        about = {"dtype": narrow or tensor.dtype, "shape": tensor.shape, "data_offsets": [start, end]}
        header[tensor.name] = about
    words = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    words += b" " * (-len(words) % 8)
    found = hashlib.sha256(len(words).to_bytes(8, "little") + words)
    for tensor in stored:
        for part in _bytes(tensor):
            found.update(_as(part, narrow) if narrow else part)
    return found.hexdigest()


def first_dtype(path: Path) -> str:
    """Return the dtype of the first floating-point tensor of a safetensors file, such as "F32"; "" if there is none."""
    return next((tensor.dtype for tensor in _stored(path, "") if "F" in tensor.dtype), "")


def _stored(path: Path, advice: str) -> Iterator[_Stored]:
    with opened(path, advice, "np"):  # refuses what is damaged
        pass
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    for name, about in header.items():
        # Earlier versions of transformers stored position_ids (0, 1, 2, ...); no version reads them.
        if name != "__metadata__" and not name.endswith("embeddings.position_ids"):
            start, end = about["data_offsets"]
            yield _Stored(name, about["dtype"], about["shape"], path, 8 + length + start, end - start)


def _bytes(tensor: _Stored) -> Iterator[bytes]:
    with tensor.file.open("rb") as stream:
        stream.seek(tensor.start)
        for start in range(0, tensor.size, _AT_ONCE):
            yield stream.read(min(_AT_ONCE, tensor.size - start))


def _narrow(stored: Sequence[_Stored]) -> str | None:
    """The 16-bit dtype that represents all these float32 tensors exactly; None if there is none."""
    if not stored or any(tensor.dtype != "F32" for tensor in stored):
        return None
    for dtype in ("BF16", "F16"):  # bfloat16 first: most numbers of bfloat16 fit into float16 as well
        if all(_as(part, dtype) is not None for tensor in stored for part in _bytes(tensor)):
            return dtype
    return None


def _as(part: bytes, dtype: str) -> bytes | None:
    """The bytes of float32 numbers in a 16-bit dtype; None if a number does not fit exactly."""
    import numpy as np

    if dtype == "BF16":  # the upper half of a float32
        halves = np.frombuffer(part, "<u2").reshape(-1, 2)
        return None if halves[:, 0].any() else halves[:, 1].tobytes()
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        numbers = np.frombuffer(part, "<f4").astype("<f2")
    return numbers.tobytes() if numbers.astype("<f4").tobytes() == part else None
