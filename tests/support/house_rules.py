"""The rules of the house as functions of source text: each returns what breaks its rule, empty when nothing does."""

from __future__ import annotations

import ast
import graphlib
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

MAX_FILE = 400
MAX_FUNCTION = 59
MAX_FOLDER = 12
MIN_FILE = 60
"""A file shorter than this belongs to whoever imports it, if only one does."""
LEAVES = {"leaves", "io"}
MODEL = {"model.bases", "model"}
BELOW_TRAINING = LEAVES | MODEL | {"embedder", "data"}
TRAINING = {"training", "training.recipe", "training.objectives"}
BELOW_EVALUATION = LEAVES | MODEL | {"embedder", "evaluation"}
ASKED = {"evaluation.tasks", "evaluation.search"}
ROOMS: dict[str, set[str]] = {
    "leaves": set(),
    "io": {"leaves"},
    "model.bases": LEAVES,
    "model": LEAVES | {"model.bases"},
    "embedder": LEAVES | MODEL,
    "data": LEAVES,
    "data.mining": LEAVES | {"data"},
    "training.objectives": LEAVES,
    "training.recipe": LEAVES | MODEL | {"data", "training.objectives"},
    "training": BELOW_TRAINING | {"training.recipe"},
    "training.estimate": BELOW_TRAINING | TRAINING,
    "training.stages": BELOW_TRAINING | TRAINING,
    "training.run": BELOW_TRAINING | TRAINING | {"training.estimate", "training.stages"},
    "evaluation": LEAVES,
    "evaluation.tasks": LEAVES,
    "evaluation.search": LEAVES | {"evaluation.tasks"},
    "evaluation.suites": LEAVES | ASKED,
    "evaluation.scores": LEAVES | {"evaluation.suites"},
    "evaluation.public": LEAVES | {"evaluation.tasks", "evaluation.suites", "evaluation.scores"},
    "evaluation.run": BELOW_EVALUATION | ASKED | {"evaluation.suites", "evaluation.scores"},
    "evaluation.report": LEAVES | {"evaluation.suites", "evaluation.scores", "evaluation.public"},
    "serving": LEAVES | MODEL | {"embedder"},
    "calibration": LEAVES | MODEL | {"embedder", "serving"},
    "index.disk": LEAVES,
    "index": LEAVES | MODEL | {"embedder", "serving", "calibration", "index.disk"},
    "server": LEAVES | MODEL | {"embedder", "serving", "calibration", "index"},
    "sharing": LEAVES | MODEL | {"embedder"},
}
"""Package -> the packages that it may import besides itself, at module level or inside functions."""
ROOMS["cli"] = set(ROOMS)
LATE: set[tuple[str, str]] = {("lusifer", "embedder")}
"""`lusifer.load` is the one door from the front of the house to a room further in."""
HEAVY = {
    "torch", "transformers", "sentence_transformers", "peft", "datasets", "mteb", "sklearn", "matplotlib",
    "huggingface_hub",
}  # fmt: skip
"""What takes its time to be imported: only where it is used, and by no command that does without."""
BROUGHT = {"scipy", "pandas", "sympy", "accelerate", "pyarrow"}
"""What those bring along, as heavy."""
LIGHT_ROOMS = {
    "leaves": HEAVY,
    "io": HEAVY,
    "cli": HEAVY,
    **dict.fromkeys(
        [name for name in ROOMS if name.split(".")[0] == "data"],
        {"torch", "transformers", "sentence_transformers", "peft", "huggingface_hub"},
    ),
}
"""Package -> what its files may not import at module level: `import lusifer` and `lusifer --help` answer at once."""

MAY_SKIP = "tests/support/browser.py"
"""A browser is the one thing that a machine may lack: no package brings it."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules(package: Path) -> dict[str, str]:
    """Read a package: dotted module name -> source. `__init__` files go by the name of their folder."""
    found = {}
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file.read_text(encoding="utf-8")
    return found


def room(module: str, sources: Mapping[str, str]) -> str:
    """The package of a module by its path under the first, "leaves" for files that lie in that one itself."""
    parts = module.split(".")
    return ".".join(parts[1:] if _is_folder(module, sources) else parts[1:-1]) or "leaves"


def imports(module: str, sources: Mapping[str, str], types: bool = False) -> Iterator[tuple[str, bool, int]]:
    """Each module that `module` imports, whether at import time, and the line.

    Args:
        module: Its name in `sources`.
        sources: Module name -> source.
        types: Whether what only a type checker imports counts, as imported at import time.
    """
    yield from _imports(ast.parse(sources[module]), module, sources, True, types)


def _imports(
    node: ast.AST, module: str, sources: Mapping[str, str], now: bool, types: bool
) -> Iterator[tuple[str, bool, int]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test) and not types:
            continue
        if isinstance(child, ast.Import):
            yield from ((name.name, now, child.lineno) for name in child.names)
        elif isinstance(child, ast.ImportFrom):
            start = _start(child, module, sources)
            for name in child.names:
                full = f"{start}.{name.name}"
                yield full if full in sources else start, now, child.lineno
        else:
            inner = now and not isinstance(child, Function | ast.Lambda)
            yield from _imports(child, module, sources, inner, types)


def _start(node: ast.ImportFrom, module: str, sources: Mapping[str, str]) -> str:
    """The absolute name behind `from`."""
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    base = parts[: len(parts) - node.level + _is_folder(module, sources)]
    return ".".join([*base, *([node.module] if node.module else [])])


def wrong_imports(sources: Mapping[str, str]) -> list[str]:
    """Imports from a room further right, and heavy libraries at module level where all must start at once."""
    wrong = []
    for module in sources:
        here = room(module, sources)
        if here not in ROOMS:
            wrong.append(f"{module}: room {here} is not in the table of rooms")
            continue
        for name, now, line in imports(module, sources):
            root = name.split(".")[0]
            there = room(name, sources) if root == module.split(".")[0] else None
            late = not now and (module, there) in LATE
            if there is not None and there not in ROOMS[here] | {here} and not late:
                wrong.append(f"{module}:{line}: {here} may not import {there}")
            if now and root in LIGHT_ROOMS.get(here, ()):
                wrong.append(f"{module}:{line}: {root} at module level: import it inside the function that needs it")
    return wrong


def circle(sources: Mapping[str, str]) -> list[str]:
    """One circle of module-level imports, those for type checkers counted, or nothing."""
    graph: dict[str, set[str]] = {}
    for module in sources:
        found = {name for name, now, _ in imports(module, sources, types=True) if now}
        graph[module] = (found & set(sources)) - {module}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def too_long(name: str, source: str) -> list[str]:
    """Files over 400 lines, functions of 60 lines and more (decorators and docstring included)."""
    lines = len(source.splitlines())
    wrong = [f"{name}: {lines} lines"] if lines > MAX_FILE else []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Function):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            length = (node.end_lineno or first) - first + 1
            if length > MAX_FUNCTION:
                wrong.append(f"{name}:{first}: {node.name} has {length} lines")
    return wrong


def crowded(sources: Mapping[str, str]) -> list[str]:
    """Folders of more than twelve files."""
    files: dict[str, int] = {}
    for module in sources:
        here = room(module, sources)
        files[here] = files.get(here, 0) + 1
    return [f"{here}: {count} files" for here, count in files.items() if count > MAX_FOLDER]


def slices(sources: Mapping[str, str]) -> list[str]:
    """Short files that a single other file imports: each is a part of that one."""
    importers: dict[str, set[str]] = {module: set() for module in sources}
    for module in sources:
        for name, _, _ in imports(module, sources, types=True):
            if name in importers and name != module:
                importers[name].add(module)
    return [
        f"{module}: {len(sources[module].splitlines())} lines, imported by {next(iter(found))} alone"
        for module, found in importers.items()
        if len(found) == 1 and len(sources[module].splitlines()) < MIN_FILE and not _is_folder(module, sources)
    ]


def _is_folder(module: str, sources: Mapping[str, str]) -> bool:
    return any(name.startswith(module + ".") for name in sources)


def doubled_classes(sources: Mapping[str, str]) -> list[str]:
    """Names that two classes of the package bear; those of private classes count as well."""
    places: dict[str, list[str]] = {}
    for module, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(module)
    return [f"class {name}: {', '.join(found)}" for name, found in places.items() if len(found) > 1]


def forbidden(name: str, source: str, *, may_print: bool = False) -> list[str]:
    """Calls of print, bare `except`, `global`, tests that are left out, and notes of unfinished work."""
    wrong = []
    for node in ast.walk(ast.parse(source)):
        what = None
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print" and not may_print:
            what = "print"
        elif isinstance(node, ast.ExceptHandler) and node.type is None:
            what = "bare except"
        elif isinstance(node, ast.Global):
            what = "global"
        elif isinstance(node, ast.Attribute) and node.attr in {"skip", "skipif", "xfail", "importorskip"}:
            what = ast.unparse(node) if ast.unparse(node).startswith("pytest.") and name != MAY_SKIP else None
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "gzip.compress":
            # The packed bytes hold the time, test names may hold the bytes, and two workers then collect other tests.
            what = None if any(word.arg == "mtime" for word in node.keywords) else "gzip.compress without mtime=0"
        if what:
            wrong.append(f"{name}:{node.lineno}: {what}")
    for number, line in enumerate(source.splitlines(), 1):
        if re.search(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b", line):
            wrong.append(f"{name}:{number}: unfinished work")
    return wrong


def undocumented(name: str, source: str) -> list[str]:
    """Public functions, classes and methods without docstring, or with a parameter or result without annotation."""
    tree = ast.parse(source)
    wrong = [] if ast.get_docstring(tree) else [f"{name}: no docstring"]
    public = [node for node in tree.body if _is_public(node)]
    for owner in [node for node in public if isinstance(node, ast.ClassDef)]:
        public += [node for node in owner.body if isinstance(node, Function) and _is_public(node)]
    for node in public:
        where = f"{name}:{node.lineno}: {node.name}"
        if not ast.get_docstring(node):
            wrong.append(f"{where}: no docstring")
        if isinstance(node, Function):
            wrong += [f"{where}: {missing} has no annotation" for missing in _unannotated(node)]
    return wrong


def _is_public(node: ast.stmt) -> bool:
    return isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_")


def _unannotated(node: Function) -> list[str]:
    """Parameters (but self and cls) without annotation, and "the result" where it has none."""
    arguments = node.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    missing = [arg.arg for arg in every if arg and arg.annotation is None and arg.arg not in ("self", "cls")]
    return missing + ([] if node.returns else ["the result"])


def shell_lines(markdown: str) -> Iterator[tuple[int, str]]:
    """The lines of fenced shell blocks with their numbers; a line that ends in a backslash takes the next one along."""
    language, held, first = None, "", 0
    for number, line in enumerate(markdown.splitlines(), 1):
        fence = re.match(r"\s*```\s*(\w*)", line)
        if fence:
            language = None if language is not None else fence[1]
        elif language in ("", "sh", "bash", "shell", "console"):
            first = first or number
            held += line.strip().removeprefix("$ ")
            if held.endswith("\\"):
                held = held[:-1] + " "
                continue
            yield first, held
            held, first = "", 0


def unknown_commands(name: str, markdown: str, group: Any, targets: set[str]) -> list[str]:
    """Lines of shell blocks that call a `lusifer` command, an option of it or a `make` target that does not exist."""
    wrong = []
    for number, line in shell_lines(markdown):
        for part in re.split(r"&&|;|\|", line):
            try:
                words = shlex.split(part, comments=True)
            except ValueError:  # a quotation that spans lines or the split: no command of ours begins inside one
                continue
            words = words[next((i for i, word in enumerate(words) if "=" not in word), len(words)) :]
            if words[:1] == ["make"]:
                wrong += [
                    f"{name}:{number}: make {word}" for word in words[1:] if word.isalpha() and word not in targets
                ]
            elif words and Path(words[0]).name == "lusifer":
                wrong += [f"{name}:{number}: {problem}" for problem in _wrong_call(words[1:], group)]
    return wrong


def _wrong_call(words: list[str], group: Any) -> list[str]:
    """What does not exist in the words after `lusifer`."""
    command = group
    options = {"--help", *(option for parameter in group.params for option in parameter.opts)}
    rest = list(words)
    while hasattr(command, "commands"):
        name = next((word for word in rest if not word.startswith("-")), None)
        if name is None:
            break
        if name not in command.commands:
            return [f"lusifer {name} does not exist"]
        rest.remove(name)
        command = command.commands[name]
        options |= {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    given = [word.split("=")[0].strip("[]") for word in rest if word.strip("[]").startswith("--")]
    return [f"{command.name} has no option {option}" for option in given if option not in options]


def unknown_files(name: str, markdown: str, files: Iterable[str]) -> list[str]:
    """Names of Python files in code spans of a page that no file of the project bears.

    Args:
        name: Of the page.
        markdown: Its text.
        files: Paths of the project; `model/lusifer.py` names any that ends so.
    """
    made = re.findall(r"^# (\S+\.py)$", markdown, flags=re.MULTILINE)  # by the reader, from a block of the page
    known = [f"/{file}" for file in (*files, *made)]
    named = re.findall(r"`([\w./-]+\.py)`", markdown)
    return [f"{name}: {file}" for file in named if not any(path.endswith(f"/{file}") for path in known)]


def targets(makefile: str) -> set[str]:
    """The targets of a Makefile that have a plain name."""
    return set(re.findall(r"^([a-z][a-z-]*):(?!=)", makefile, flags=re.MULTILINE))
