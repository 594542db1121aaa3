"""`import lusifer` costs nothing, and makes the Auto classes know our model in whatever order things are imported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lusifer
from support.forks import Interpreter
from support.house_rules import BROUGHT, HEAVY

pytestmark = pytest.mark.slow


def run(*lines: str) -> str:
    """Run lines in a fresh interpreter and give what they print."""
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def forked(interpreter: Interpreter) -> Callable[..., str]:
    """As `run`, where what is common was imported before."""

    def run_forked(*lines: str) -> str:
        return interpreter.run("\n".join(lines)).strip()

    return run_forked


def test_import_loads_nothing_heavy():
    heavy = HEAVY | BROUGHT | {"numpy", "typer", "pydantic"}
    assert run("import lusifer, sys", f"print({heavy} & set(sys.modules))") == "set()"


@pytest.mark.parametrize("rest", ["time.sleep(60)", "subprocess.Popen(['sleep', '60'])"])
def test_a_forked_program_that_hangs_is_killed_and_what_it_printed_is_shown(rest, interpreter):
    program = f"import subprocess, time\nprint('begun')\n{rest}"
    with pytest.raises(AssertionError, match="killed after 1.5 seconds, in which it had printed: begun"):
        interpreter.run(program, seconds=1.5)
    assert interpreter.run("print('next')") == "next\n"


# Every row loads much, so each stands for a kind. The order "Auto classes first, lusifer
# second" is that of `test_a_folder_loads_with_no_flag`.
ORDERS = [
    ("import lusifer", "import transformers"),
    ("import lusifer", "import sentence_transformers"),
    # The Auto classes are loaded inside the import of libraries that our model needs whole (peft, modeling_utils).
    ("import lusifer", "from transformers import Trainer"),
    # Our own configuration causes the import of the Auto classes.
    ("import lusifer.model.config",),
]


@pytest.mark.parametrize("order", ORDERS, ids=" ; ".join)
def test_the_auto_classes_know_us_in_every_order(order, forked):
    check = (
        "from transformers import AutoConfig, AutoModel",
        "config = AutoConfig.for_model('lusifer')",
        "print(type(config).__name__, AutoModel._model_mapping[type(config)].__name__)",
    )
    assert forked(*order, *check).splitlines()[-1] == "LusiferConfig LusiferModel"


@pytest.fixture(scope="module")
def plain_folder(bases_folder: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that transformers itself has written: configuration, weights and tokenizer."""
    from transformers import AutoConfig, AutoTokenizer

    from lusifer.model.config import LusiferConfig
    from lusifer.model.lusifer import LusiferModel

    folder = tmp_path_factory.mktemp("plain")
    encoder, llm = (AutoConfig.from_pretrained(base) for base in bases_folder)
    LusiferModel(LusiferConfig(encoder=encoder, llm=llm)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(bases_folder[0]).save_pretrained(folder)
    return folder


def test_a_folder_loads_with_no_flag(plain_folder, forked):
    printed = forked(
        "from transformers import AutoModel, AutoTokenizer",
        "import lusifer",
        f"tokenizer = AutoTokenizer.from_pretrained({str(plain_folder)!r})",
        f"model, report = AutoModel.from_pretrained({str(plain_folder)!r}, output_loading_info=True)",
        "assert not report['missing_keys'] and not report['unexpected_keys'], report",
        "out = model(**tokenizer(['Rain fell.', 'El perro duerme.'], padding=True, return_tensors='pt'))",
        "print(type(model).__name__, tuple(out.embedding.shape))",
    )
    assert printed.splitlines()[-1] == "LusiferModel (2, 48)"


def test_other_libraries_give_the_vectors_with_no_flag(model_folder, tmp_path, forked):
    texts, target = (
        ["Rain fell on the roof.", "La lluvia cayó sobre el tejado.", "雨が降った。"],
        tmp_path / "vectors.npy",
    )
    forked(
        "import lusifer",
        "from sentence_transformers import SentenceTransformer",
        "import numpy, torch",
        "from transformers import AutoConfig, AutoModel, AutoTokenizer",
        f"path, texts = {str(model_folder)!r}, {texts!r}",
        "vectors = SentenceTransformer(path, device='cpu').encode(texts)",
        "model, tokenizer = AutoModel.from_pretrained(path), AutoTokenizer.from_pretrained(path)",
        "with torch.no_grad():",
        "    raw = model(**tokenizer(texts, padding=True, return_tensors='pt')).embedding",
        "own = torch.nn.functional.normalize(raw, dim=-1).numpy()",
        "assert AutoConfig.from_pretrained(path).model_type == 'lusifer'",
        "assert abs(own - vectors).max() < 1e-6",
        f"numpy.save({str(target)!r}, vectors)",
    )
    assert np.abs(np.load(target) - lusifer.load(model_folder, device="cpu").encode(texts)).max() < 1e-6


def test_the_processor_of_a_folder_is_its_tokenizer(plain_folder):
    from transformers import AutoProcessor, AutoTokenizer

    text = "Rain fell on the roof."
    processor, tokenizer = (cls.from_pretrained(plain_folder) for cls in (AutoProcessor, AutoTokenizer))
    assert processor(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_without_lusifer_the_folder_is_refused(plain_folder, forked):
    printed = forked(
        "from transformers import AutoModel",
        "try:",
        f"    AutoModel.from_pretrained({str(plain_folder)!r})",
        "except (ValueError, KeyError) as error:",
        "    print('lusifer' in str(error))",
    )
    assert printed.splitlines()[-1] == "True"
