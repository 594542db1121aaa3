"""Search your own texts with questions in any language.

    pip install '.[mini,index]' --constraint constraints.txt
    python examples/search_texts.py                                  # the packaged sentences, asked in 14 languages
    python examples/search_texts.py --texts FOLDER "Where is the station?" "Dov'è la stazione?"

FOLDER has .txt and .md files, or it is one file as for `lusifer embed`. The vectors are stored in a folder (--index); a
second call embeds only new and changed texts. Nothing here needs a GPU, and after the installation no network.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lusifer.cli import terminal
from lusifer.errors import LusiferError
from lusifer.index import documents
from lusifer.index.index import Index
from lusifer.io import parallel_text
from lusifer.languages import language


def main() -> None:
    """Read the options, search, and print an error as one line."""
    parser = argparse.ArgumentParser(description="Search your own texts with questions in any language.")
    parser.add_argument("questions", nargs="*", metavar="QUESTION")
    parser.add_argument("--texts", metavar="FOLDER", help="your texts; by default the packaged English sentences")
    parser.add_argument("--index", type=Path, help="folder of the index; by default FOLDER.index here, or texts.index")
    parser.add_argument("--model", help="model of the index; by default mini for a new one")
    parser.add_argument("--top-k", type=int, default=1, help="number of texts for each question")
    options = parser.parse_args()
    if options.texts and not options.questions:
        parser.error("give a question after the options")
    if options.index is None:  # the packaged sentences and your texts stay apart
        options.index = Path(f"{Path(options.texts).resolve().stem if options.texts else 'texts'}.index")
    terminal.quiet()  # no progress bars and warnings of the libraries
    try:
        search(options)
    except LusiferError as error:
        raise SystemExit(f"error: {error}") from None


def search(options: argparse.Namespace) -> None:
    """Index the texts, and print the best ones for each question."""
    sample = parallel_text.sample().texts  # language -> 28 sentences, which are translations of each other
    questions = {question: question for question in options.questions}
    if not questions:
        questions = {language(code).name: sentences[0] for code, sentences in sample.items()}

    # An index stores texts, ids, vectors and your own fields.
    if options.texts:
        rows = documents.source(options.texts, None, None, None).documents()
    else:
        rows = [{"id": f"sentence {number}", "text": text} for number, text in enumerate(sample["en"])]
    if options.index.exists():
        index = Index.open(options.index, options.model)  # an error for another model than that of the index
    else:
        index = Index.create(options.index, options.model or "mini")
    counts = index.update(rows)
    print(f"{options.index}: {counts.added} texts added, {counts.replaced} replaced, {counts.unchanged} unchanged")

    # One call embeds all questions. A score is the cosine of question and text.
    for name, hits in zip(questions, index.search(list(questions.values()), top_k=options.top_k), strict=True):
        print(name)
        for hit in hits:
            print(f"  {hit.score:.3f}  {hit.id}: {' '.join(hit.text.split())[:100]}")


if __name__ == "__main__":
    main()
