"""Tiny bases, models and runs that many tests share, and what makes a test quick; no test needs the network.

A test that is not marked `slow` starts no other Python, compiles nothing and trains nothing: one that does fails here,
so `make quick` stays quick.
"""

from __future__ import annotations

import functools
import gc
import os
import subprocess
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import wrapt
from hypothesis import settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from support.forks import Interpreter

# Before any test imports a library that reads them: nothing may reach for the hub, and two cores are enough.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Random examples would make one run differ from the next; slow machines would trip over the deadline.
settings.register_profile("lusifer", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("lusifer")


# What is written survives a killed process without it, and no test cuts the power.
os.fsync = lambda descriptor: None

LONG = {"tests", "end_to_end"}
"""Folders of the files that take longest, by the test."""
QUICK: list[bool] = []
"""Whether the test that runs now is a quick one; empty between tests."""


def _refuse(work: str) -> None:
    if QUICK and QUICK[-1]:
        raise AssertionError(f"a quick test {work}: mark it with @pytest.mark.slow, or do without")


def _refused(work: str) -> Callable[..., Any]:
    def call(wrapped: Callable[..., Any], instance: Any, words: tuple[Any, ...], named: dict[str, Any]) -> Any:
        _refuse(work)
        return wrapped(*words, **named)

    return call


def _starts(wrapped: Callable[..., Any], instance: Any, words: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Not an audit hook: Python calls one for every `id`, a million times a minute."""
    command = words[0] if words else named["args"]
    program = command if isinstance(command, str | bytes | os.PathLike) else command[0]
    name = "sh" if named.get("shell") else Path(os.fsdecode(named.get("executable") or program)).name
    if name.startswith("python") or "++" in name or "cc" in name:
        _refuse(f"starts {name}")
    return wrapped(*words, **named)


wrapt.wrap_function_wrapper(subprocess.Popen, "__init__", _starts)
wrapt.wrap_function_wrapper(BaseProcess, "start", _refused("starts a process"))


@wrapt.when_imported("lusifer.serving.dtypes")
def _one_processor(module: Any) -> None:
    """Let `--dtype auto` see a processor without bfloat16 everywhere; tests of it say which one they want."""
    module.multiplies = lambda dtype: dtype == "float32"


@wrapt.when_imported("lusifer.io.files")
def _hash_packages_once(module: Any) -> None:
    """Hash an installed file once: the bases of `mini` have 180 MB, and many tests load it."""
    hashed, packages = functools.cache(module.sha256), sysconfig.get_path("platlib")

    def sha256(file: Path) -> str:
        return (hashed if os.path.abspath(file).startswith(packages) else hashed.__wrapped__)(file)

    module.sha256 = sha256


@wrapt.when_imported("transformers.trainer")
def _watch_trainer(module: Any) -> None:
    wrapt.wrap_function_wrapper(module, "Trainer.train", _refused("trains"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Fixtures count too, of a whole session as well: the quick test that is first would wait for them."""
    QUICK.append(item.get_closest_marker("slow") is None)
    try:
        return (yield)
    finally:
        QUICK.pop()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: one that came last would keep one core busy and leave the other idle."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (item.path.parent.name not in LONG, -slow[item.path]))


def pytest_collection_finish() -> None:
    """Leave what is imported out of garbage collections: trainers ask for whole ones, a third of a short run."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Keep torch to one thread, in fixtures too: sums in one order, and no crowding on small machines."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def interpreter() -> Iterator[Interpreter]:
    """Another Python that has imported what takes longest, and runs programs in forks of itself."""
    from support import forks

    with forks.started() as started:
        yield started


@pytest.fixture(scope="session")
def bases_folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of `tiny:encoder` (XLM-R, hidden 32) and `tiny:llm` (Mistral, hidden 48). Read only."""
    from lusifer.model.build import make_tiny_bases

    return make_tiny_bases(tmp_path_factory.mktemp("bases"))


@pytest.fixture(scope="session")
def encoder_folder(bases_folder: tuple[Path, Path]) -> Path:
    """A tiny XLM-R with its tokenizer. Read only."""
    return bases_folder[0]


@pytest.fixture(scope="session")
def llm_folder(bases_folder: tuple[Path, Path]) -> Path:
    """A tiny Mistral with LM head and tokenizer. Read only."""
    return bases_folder[1]


@pytest.fixture(scope="session")
def minilm_like_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with a WordPiece tokenizer, the kind of target that is an embedder already. Read only."""
    from support.tiny_bases import make_tiny_base

    return make_tiny_base(tmp_path_factory.mktemp("minilm"), "llm", "bert")


@pytest.fixture(scope="session")
def xlmr_tokenizer() -> PreTrainedTokenizerFast:
    """Unigram, `<s> text </s>`, with `<pad>` and `<mask>`."""
    from support.tiny_bases import tiny_tokenizer

    return tiny_tokenizer("xlm-roberta")


@pytest.fixture(scope="session")
def llm_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE, `<s> text`, with `</s>` and without a pad token."""
    from support.tiny_bases import tiny_tokenizer

    return tiny_tokenizer("mistral")


@pytest.fixture(scope="session")
def model_folder(bases_folder: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model folder of random weights, as training writes it: reads 64 tokens, gives 48 numbers. Read only."""
    from lusifer.embedder import folder
    from support.tiny_folder import tiny_embedder

    target = tmp_path_factory.mktemp("trained") / "model"
    folder.save(tiny_embedder(bases_folder), target)
    return target


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe of a small run of both stages."""
    from support.small_run import RECIPE

    file = tmp_path_factory.mktemp("recipe") / "small.yaml"
    file.write_text(RECIPE)
    return file


@pytest.fixture(scope="session")
def one_stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe of the first stage of that run alone."""
    from support.small_run import RECIPE

    file = tmp_path_factory.mktemp("recipe") / "one.yaml"
    file.write_text(RECIPE[: RECIPE.index("  - name: contrast")])
    return file


@pytest.fixture(scope="session")
def finished(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that run, both stages done."""
    from support.small_run import train

    output = tmp_path_factory.mktemp("run") / "run"
    train(recipe, output)
    return output


@pytest.fixture
def forked_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that share the texts of a model start in a moment; evaluation/run/test_evaluate.py does as users do."""
    from support.processes import CONTEXT

    monkeypatch.setattr("sentence_transformers.base.model.mp.get_context", lambda method: CONTEXT)
