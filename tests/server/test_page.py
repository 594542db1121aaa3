"""The page in a browser: questions in any script, by keyboard alone, two models side by side."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from lusifer.index.index import Index
from lusifer.server import run
from support import browser, http_server

pytestmark = pytest.mark.slow
DOCUMENTS = [
    {"id": "en", "text": "The station is in the north of the town.", "language": "en"},
    {"id": "ar", "text": "المحطة في شمال المدينة.", "language": "ar"},
    {"id": "sw", "text": "Kituo kiko kaskazini mwa mji.", "language": "sw"},
    {"id": "hi", "text": "स्टेशन शहर के उत्तर में है।", "language": ""},
    {"id": "ja", "text": "駅は町の北にあります。", "language": ""},
    {"id": "<b>", "text": "<img src=x onerror=document.title='broken'> & more", "language": "en"},
]
MODEL = {"id": "one", "index": "towns", "max_tokens": 64}


@pytest.fixture(scope="module")
def client(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Two models over one index, and a key."""
    folder = tmp_path_factory.mktemp("page")
    for name in ("one", "two"):
        (folder / name).symlink_to(model_folder)
    Index.create(folder / "towns", folder / "one").add(DOCUMENTS)
    models = [str(folder / name) for name in ("one", "two")]
    app = run.make(models, indexes=[folder / "towns"], keys=["secret"], device="cpu")
    with http_server.running(app) as client:
        yield client


@pytest.fixture(scope="module")
def page(client: httpx.Client) -> Iterator[Any]:
    """The page, its key given as a browser gives it; it asks nothing of anyone but its server."""
    with browser.opened() as opened:
        context = opened.new_context(http_credentials={"username": "me", "password": "secret"}, locale="en")
        page = context.new_page()
        asked, wrong = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(str(client.base_url))
        page.wait_for_selector("#said:not(:empty)")
        yield page
        assert wrong == [] and all(url.startswith((str(client.base_url), "data:")) for url in asked)


def ask(page: Any, query: str) -> list[str]:
    """Type a question by keyboard alone; gives the texts that are found by the first model."""
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "query"
    page.keyboard.press("Control+A")
    page.keyboard.type(query)
    page.evaluate("document.getElementById('columns').replaceChildren()")
    page.keyboard.press("Enter")
    page.wait_for_selector("li")
    return page.locator("section").first.locator("li p").all_inner_texts()


def test_both_models_show_what_they_find_with_its_language(page: Any) -> None:
    assert page.inner_text("#said") == "one searches towns, two searches towns"
    found = ask(page, "Where is the station?")
    assert sorted(found) == sorted(document["text"] for document in DOCUMENTS)
    assert page.locator("section").count() == 2 and page.locator("h2").all_inner_texts() == ["one", "two"]
    boxes = [section.bounding_box() for section in page.locator("section").all()]
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    shown = {
        item.locator("p").inner_text(): item.locator(".language").inner_text()
        for item in page.locator("section").first.locator("li").all()
    }
    wanted = ["English", "Arabic", "Swahili", "Devanagari script", "Japanese", "English"]
    assert shown == {document["text"]: name for document, name in zip(DOCUMENTS, wanted, strict=True)}
    assert page.title() == "Lusifer: search in any language"  # markup in a text is text


def test_an_empty_question_shows_no_old_results(page: Any) -> None:
    ask(page, "Where is the station?")
    assert page.locator("section").count() == 2
    page.fill("#query", " ")
    assert page.locator("section").count() == 0 and page.inner_text("#said") == ""
    page.keyboard.press("Enter")
    assert page.inner_text("#said") == ""


def test_hits_below_a_score_are_left_out_and_calibrated_ones_are_offered_with_statistics(page: Any) -> None:
    found = ask(page, "Kituo kiko kaskazini mwa mji.")
    page.fill("#least", "0.999")
    assert found[0] == "Kituo kiko kaskazini mwa mji." and ask(page, found[0]) == found[:1] and len(found) > 1
    page.fill("#least", "")
    assert page.is_hidden("#comparable")
    shown = """([model, result]) => { models = [model]; return show(model, [result], new Headers()).textContent; }"""
    kept = page.evaluate("models")
    text = page.evaluate(shown, [kept[0], {"text": "Maji", "score": 0.5, "calibrated": 2.345, "language": "sw"}])
    page.evaluate("kept => { models = kept; }", kept)
    assert "score 0.500calibrated 2.35" in text.replace("2.34", "2.35") and "Swahili" in text


def test_the_calibrated_box_asks_for_calibrated_scores(page: Any) -> None:
    asked: list[bool] = []

    def record(route: Any) -> None:
        asked.append(route.request.post_data_json["calibrated"])
        route.continue_() if not asked[-1] else route.fulfill(json={"results": []})

    other = page.context.new_page()
    other.route("**/v1/models", lambda route: route.fulfill(json={"data": [dict(MODEL, calibrated=True)]}))
    other.route("**/search", record)
    other.goto(page.url)
    other.wait_for_selector("#comparable:not([hidden])")
    other.fill("#query", "Kituo")
    for ticked in (False, True):
        other.set_checked("#calibrated", ticked)
        other.evaluate("document.getElementById('columns').replaceChildren()")
        other.press("#query", "Enter")
        other.wait_for_selector("section")
    assert asked == [False, True]
    other.close()


def test_the_lowest_score_is_a_calibrated_one_where_the_box_is_ticked(page: Any) -> None:
    """Of two models only one has calibrated scores: a cosine must not be compared with the same number."""
    asked: dict[str, Any] = {}

    def record(route: Any) -> None:
        body = route.request.post_data_json
        asked[body["model"]] = body.get("min_score")
        route.fulfill(json={"results": [{"text": "Maji", "score": 0.5}]})

    other = page.context.new_page()
    models = [dict(MODEL, calibrated=True), dict(MODEL, id="two", calibrated=False)]
    other.route("**/v1/models", lambda route: route.fulfill(json={"data": models}))
    other.route("**/search", record)
    other.goto(page.url)
    other.wait_for_selector("#comparable:not([hidden])")
    other.fill("#query", "Kituo")
    other.fill("#least", "1.5")
    for ticked, wanted, label in (
        (False, {"one": 1.5, "two": 1.5}, "Lowest score (optional)"),
        (True, {"one": 1.5, "two": None}, "Lowest calibrated score (optional)"),
    ):
        other.set_checked("#calibrated", ticked)
        other.evaluate("document.getElementById('columns').replaceChildren()")
        other.press("#query", "Enter")
        other.wait_for_selector("section:nth-child(2)")
        assert asked == wanted and other.inner_text("#of-least") == label
        ignored = ["the lowest score is ignored" in about for about in other.locator(".about").all_inner_texts()]
        assert ignored == [False, ticked]
    other.close()


def test_a_box_that_changes_before_the_answer_changes_nothing_of_it(page: Any) -> None:
    other = page.context.new_page()
    other.route("**/v1/models", lambda route: route.fulfill(json={"data": [dict(MODEL, calibrated=False)]}))
    waiting: list[Any] = []
    other.route("**/search", lambda route: waiting.append(route))  # a built-in function cannot be a handler
    other.goto(page.url)
    other.wait_for_selector("#said:not(:empty)")
    other.fill("#query", "Kituo")
    other.fill("#least", "0.4")
    with other.expect_request("**/search"):
        other.press("#query", "Enter")
    other.evaluate("at('calibrated').checked = true")
    waiting[0].fulfill(json={"results": [{"text": "Maji", "score": 0.5}]})
    other.wait_for_selector("section")
    assert waiting[0].request.post_data_json["min_score"] == 0.4
    assert "ignored" not in other.inner_text(".about")
    assert other.inner_text("#of-least") == "Lowest score (optional)"
    other.evaluate("dispatchEvent(new PageTransitionEvent('pageshow'))")  # as after a state that the browser restores
    assert other.inner_text("#of-least") == "Lowest calibrated score (optional)"
    other.close()


def test_a_badge_names_a_language_or_a_script_as_such(page: Any) -> None:
    texts = {"कखग": "Devanagari script", "北方": "Chinese characters", "Νερό": "Greek", "вода": "Cyrillic script"}
    named = page.evaluate("texts => texts.map(text => languageOf({ text }))", [*texts, "水です", "물", "agua", "42"])
    assert named == [*texts.values(), "Japanese", "Korean", "", ""]


def test_text_runs_in_its_own_direction(page: Any) -> None:
    ask(page, "أين المحطة؟")
    direction = "element => getComputedStyle(element).direction"
    assert page.eval_on_selector("#query", direction) == "rtl"
    arabic = page.locator("section").first.locator("li p[lang=ar]")
    assert arabic.evaluate(direction) == "rtl"
    assert page.locator("section").first.locator("li p[lang=sw]").evaluate(direction) == "ltr"
    ask(page, "駅はどこですか")
    assert page.eval_on_selector("#query", direction) == "ltr"


def test_keys_are_enough(page: Any) -> None:
    ask(page, "Where is the station?")
    focus = "[...document.querySelectorAll('li')].indexOf(document.activeElement)"
    steps = []
    for key in ("ArrowDown", "ArrowDown", "ArrowUp", "ArrowUp"):
        page.keyboard.press(key)
        steps.append(page.evaluate(focus))
    assert steps == [0, 1, 0, -1] and page.evaluate("document.activeElement.id") == "query"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "query" and "/" not in page.input_value("#query")


def test_without_an_index_it_ranks_texts_that_are_typed_and_says_what_is_wrong(
    page: Any, model_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "tiny").symlink_to(model_folder)
    with http_server.running(run.make([str(tmp_path / "tiny")], device="cpu")) as client:
        other = page.context.new_page()
        other.goto(str(client.base_url))
        other.fill("#query", "maji")
        other.press("#query", "Enter")
        other.wait_for_selector("#said.wrong")
        assert other.inner_text("#said") == "enter some texts to search, one per line"
        other.fill("#texts", "نهر\n\nmaji\n水")
        other.press("#query", "Enter")
        other.wait_for_selector("li")
        assert other.locator("li p").first.inner_text() == "maji" and other.locator("li").count() == 3
        assert other.locator(".language").all_inner_texts().count("Latin script") == 0
        other.fill("#least", "0.999")
        other.press("#query", "Enter")
        other.wait_for_selector("li:only-child")
        other.close()
