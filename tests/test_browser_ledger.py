"""The ledger's tabs in a real browser: what a reader does, and the numbers that he then sees.

With ``SARLAB_UPDATE_PICTURES=1`` the pictures of the ledger go to docs/pictures.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from browser_lab import REPOSITORY, lab_page, set_theme
from test_browser import BENCH, CONTRAST, UPDATE, field, tab, until
from test_ledger import ANSWER, FILLER, QUESTION

from sarlab import load_policy
from sarlab.display.text import signed
from sarlab.rewards.dependence import AnswerDependence, answer_dependence

pytestmark = [pytest.mark.browser, pytest.mark.slow]
LEDGER = f"{BENCH} .sarlab-ledger-tab"
PARTS = f"{BENCH} .sarlab-question-tab"
CELL = f"""from sarlab.widgets.candidates import Draft
from sarlab.widgets.workbench import Workbench
texts = ({ANSWER!r}, {ANSWER.replace(FILLER, "")!r})
Workbench("tiny", [Draft({QUESTION!r}, text, "681", name) for text, name in zip(texts, "xy")])"""


@pytest.fixture(scope="module")
def made() -> AnswerDependence:
    return answer_dependence(load_policy("tiny"), QUESTION, ANSWER, gold="681")


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Iterator[Any]:
    root = tmp_path_factory.mktemp("lab")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, root / "ledger.ipynb")
    with lab_page(root, "ledger.ipynb", tmp_path_factory.mktemp("scratch")) as page:
        page.wait_for_selector(f"{BENCH} .sarlab-tokens .sarlab-token")
        # Of equal questions the first label is opened, whichever ranks first.
        page.locator(f"{BENCH} .sarlab-ranking tbody tr", has_text="x").first.click()
        tab(page, "Ledger")
        page.locator(f"{LEDGER} .sarlab-table tbody tr").nth(6).wait_for()
        yield page


def cells(page: Any, column: int, where: str = LEDGER) -> list[str]:
    rows = page.locator(f"{where} .sarlab-table tbody")  # read at once: rows may be replaced
    column_of = "(bodies, n) => bodies.flatMap(b => [...b.rows].map(r => r.cells[n].textContent))"
    return rows.evaluate_all(column_of, column)


def test_the_lines_are_shown_as_the_library_has_them(page, made) -> None:
    assert [c.split(" ", 1)[1] for c in cells(page, 0)] == made.classes()
    assert cells(page, 2) == [signed(v, 1) for v in made.read_nats.tolist()]
    assert cells(page, 3)[:-1] == [signed(d, 1) for d in made.fed_nats.tolist()[:-1]]
    assert page.locator(LEDGER, has_text=f"Filler: {made.filler_share():.0%} of").count() == 1
    grounds = page.evaluate(
        "(where) => [...document.querySelectorAll(where)]"
        ".map((cell) => getComputedStyle(cell).backgroundColor)",
        f"{LEDGER} .sarlab-table tbody td:first-child",
    )
    assert len(set(grounds)) == len(set(made.classes()))


def test_the_thresholds_move_by_keyboard(page, made) -> None:
    handle = page.locator(f'{LEDGER} [role=slider][aria-label="d ≥"]')
    handle.focus()
    for _ in range(50):
        page.keyboard.press("ArrowRight")
    share = f"Filler: {made.filler_share(2, 30):.0%} of"
    page.locator(LEDGER, has_text=share).wait_for()
    for _ in range(50):
        page.keyboard.press("ArrowLeft")
    page.locator(LEDGER, has_text=f"Filler: {made.filler_share(2, 5):.0%} of").wait_for()
    handle = page.locator(f'{LEDGER} [role=slider][aria-label="v ≥"]')
    handle.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowRight")


def test_the_lines_are_sorted(page, made) -> None:
    field(page, "Sort lines").select_option("feeds (d)")
    order = sorted(range(7), key=lambda k: -made.fed_nats[k].item())
    until(page, lambda: cells(page, 1) == [str(k + 1) for k in order])
    field(page, "Sort lines").select_option("as written")
    until(page, lambda: cells(page, 1) == [str(k + 1) for k in range(7)])


def test_arcs_are_drawn_on_demand_and_follow_the_chosen_line(page) -> None:
    button = page.locator(f"{LEDGER} button", has_text="Arcs from line to line")
    button.focus()
    page.keyboard.press("Enter")
    page.locator(f"{LEDGER} svg[role=img] path").first.wait_for()
    page.locator(f"{LEDGER} .sarlab-table tbody tr").nth(0).focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.locator(f'{LEDGER} svg path[opacity="0.15"]').first.wait_for(state="attached")
    tab(page, "Tokens")
    page.locator(f"{BENCH} .sarlab-tokens .sarlab-selected").first.wait_for()
    tab(page, "Ledger")
    page.locator(f"{LEDGER} svg[role=img] path").first.wait_for()


@pytest.mark.parametrize("width", [1440, 1000])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_both_tabs_are_readable(page, dark, width, tmp_path_factory) -> None:
    pictures = tmp_path_factory.mktemp("pictures")
    page.set_viewport_size({"width": width, "height": 1500})
    set_theme(page, dark)
    least: dict[str, float] = {}
    for name, where in (("Ledger", LEDGER), ("Question", PARTS)):
        tab(page, name)
        page.locator(f"{where} .sarlab-table tbody tr").first.wait_for()
        page.wait_for_timeout(500)
        found = page.evaluate(CONTRAST, where)
        least = {k: min(v, least.get(k, 99)) for k, v in {**least, **found}.items()}
        path = pictures / f"{name}-{width}-{dark}.png"
        page.locator(BENCH).first.screenshot(path=path)
        if UPDATE and (name, width) == ("Ledger", 1440):
            picture = REPOSITORY / "docs" / "pictures" / f"ledger-{'dark' if dark else 'light'}.png"
            page.locator(LEDGER).first.screenshot(path=picture)
        wide = page.evaluate(
            "(where) => { const e = document.querySelector(where);"
            " return e.scrollWidth - e.clientWidth }",
            where,
        )
        assert wide <= 2, f"{name} is wider than its place by {wide} pixels"
    print(f"\n{pictures}: least {min(least.values()):.2f}", least)
    set_theme(page, False)
    tab(page, "Ledger")
    poor = {k: round(v, 2) for k, v in least.items() if v < (3.0 if k in ("mark", "line") else 4.5)}
    assert not poor


def test_sentences_and_a_span_have_a_ledger(page) -> None:
    page.locator(f"{LEDGER} button", has_text="selected span").click()
    until(page, lambda: len(cells(page, 0)) == 3)
    page.locator(f"{LEDGER} button", has_text="sentences").click()
    until(page, lambda: len(cells(page, 0)) == 7)
    page.locator(f"{LEDGER} button", has_text="lines").first.click()
    until(page, lambda: len(cells(page, 0)) == 7)
    assert not page.errors


def test_the_pinned_answers_have_their_ledgers_side_by_side(page) -> None:
    rows = page.locator(f"{BENCH} .sarlab-ranking tbody tr")
    for row, name in ((0, "A"), (1, "B")):
        rows.nth(row).locator(".sarlab-pins button", has_text=name).click()
    page.locator(f"{LEDGER} button", has_text="pinned A and B").click()
    until(page, lambda: page.locator(f"{LEDGER} .sarlab-ledger table").count() == 2)
    page.locator(f"{LEDGER} button", has_text="opened answer").click()
    until(page, lambda: len(cells(page, 0)) == 7)


def test_the_question_tab_shows_what_a_sentence_gives(page) -> None:
    tab(page, "Question")
    until(page, lambda: len(cells(page, 2, PARTS)) == 2)
    page.locator(f"{PARTS} .sarlab-table tbody tr").nth(1).click()
    page.locator(PARTS, has_text="Tokens by what How many coins").first.wait_for()
    page.locator(f"{PARTS} button", has_text="numbers").click()
    until(page, lambda: cells(page, 2, PARTS) == ["384", "297"])
    page.locator(f"{PARTS} button", has_text="sentences").click()
    until(page, lambda: len(cells(page, 2, PARTS)) == 2)
    assert not page.errors


@pytest.mark.parametrize("width", [1440, 1000])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_position_chart_follows_the_choices(page, dark, width, tmp_path) -> None:
    page.set_viewport_size({"width": width, "height": 1500})
    set_theme(page, dark)
    tab(page, "Position")
    where = f"{BENCH} .sarlab-position"
    titles = page.locator(f"{where} .js-plotly-plot .g-ytitle, {where} .js-plotly-plot .g-xtitle")
    for quantity in ("entropy", "Δ log p"):
        page.get_by_label("Quantity").focus()
        page.get_by_label("Quantity").select_option(quantity)
        until(page, lambda q=quantity: any(q in t for t in titles.all_text_contents()))
    page.locator(f"{where} button", has_text="token by token").focus()
    page.keyboard.press("Enter")
    until(page, lambda: "token of the answer" in titles.all_text_contents())
    page.locator(f"{where} button", has_text="share of the answer").click()
    until(page, lambda: any("% of its tokens" in t for t in titles.all_text_contents()))
    page.wait_for_timeout(500)
    found = page.evaluate(CONTRAST, where)
    page.locator(where).screenshot(path=kept(tmp_path, f"position-{width}-{dark}.png"))
    set_theme(page, False)
    tab(page, "Ledger")
    assert min(found.values()) >= 4.5, found


@pytest.mark.parametrize("width", [1440, 1000])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_right_answers_with_filler_are_listed_and_opened(page, dark, width, tmp_path) -> None:
    page.set_viewport_size({"width": width, "height": 1500})
    set_theme(page, dark)
    page.locator(f"{LEDGER} button", has_text="all right answers").focus()
    page.keyboard.press("Enter")
    said = page.locator(LEDGER, has_text="of 2 right answers")
    said.wait_for()
    handle = page.locator(f'{LEDGER} [role=slider][aria-label="filler ≥"]')
    handle.focus()
    while float(handle.get_attribute("aria-valuenow")) > 0.1:
        handle.press("ArrowLeft")
    until(page, lambda: "1 of 2 right answers" in page.locator(LEDGER).text_content())
    until(page, lambda: cells(page, 4) == ["x"])  # the one with a line of filler
    found = page.evaluate(CONTRAST, LEDGER)
    page.locator(LEDGER).screenshot(path=kept(tmp_path, f"filler-{width}-{dark}.png"))
    page.locator(f"{LEDGER} .sarlab-table tbody tr").focus()
    page.keyboard.press("Enter")
    page.locator(f"{BENCH} .sarlab-ranking tr[aria-selected=true]", has_text="x").wait_for()
    page.locator(f"{LEDGER} button", has_text="opened answer").click()
    set_theme(page, False)
    assert min(v for k, v in found.items() if k not in ("mark", "line")) >= 4.5, found


def kept(scratch: Path, name: str) -> Path:
    """Where a picture goes that someone wants to look at."""
    return Path(os.environ.get("SARLAB_PICTURES", scratch)) / name
