"""Notebook 01 in a real browser: what a reader does, and the numbers that he then sees.

With ``SARLAB_UPDATE_PICTURES=1`` the pictures of the token view, made with smollm2-135m, go to
docs/pictures, for the README. ``browser_controls.md`` lists the controls and their tests.
"""

from __future__ import annotations

import fnmatch
import io
import json
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from browser_lab import (
    REPOSITORY,
    TYPE_AND_TIME,
    chromium_path,
    jupyter_lab,
    open_notebook,
    open_page,
    run_all_from_menu,
    set_theme,
)
from made_run import make_run
from PIL import Image

from sarlab import Policy, load_policy, load_task, score_answers
from sarlab.display.tables import html_table
from sarlab.display.text import HALF_CHARACTER, number, one_line, signed, visible
from sarlab.models import add_lora, export_policy
from sarlab.rewards.answers import AnswerScore, Rescorer
from sarlab.widgets.audit import choose_questions, read_audit
from sarlab.widgets.candidates import read_examples, score_candidates
from sarlab.widgets.designs import compare_designs

pytestmark = [pytest.mark.browser, pytest.mark.slow]
UPDATE = os.environ.get("SARLAB_UPDATE_PICTURES") == "1"
MODEL = "smollm2-135m" if UPDATE else "tiny"
QUESTIONS = 2
DENSE_REWARD = """from sarlab.rewards import REWARDS, Reward
first = lambda inputs: 3.0 * (inputs.answer_mask.cumsum(1) == 1)
first.__module__ = "sarlab.rewards"  # on offer, but not among those shown at first
REWARDS["per_token"] = Reward(first, False, "the first token")
"""
BENCH = ".sarlab-workbench"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy(MODEL)


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[tuple[int, str, Path]]:
    chromium_path()  # skip before anything is started
    root = tmp_path_factory.mktemp("lab")
    (root / "notebooks").mkdir()
    tiny = load_policy("tiny")
    questions = load_task("word_problems").heldout(3)
    make_run(root / "runs" / "sa_grpo-s0", tiny, questions, group=6, limit=160)
    export_policy(add_lora(load_policy("tiny"), rank=2), root / "runs" / "sa_grpo-s0" / "adapter")
    make_run(root / "runs" / "other-s1", tiny, questions[:1], steps=2, group=3, limit=40)
    with jupyter_lab(root, tmp_path_factory.mktemp("server")) as (port, token):
        yield port, token, root


def put_notebook(root: Path, name: str, model: str, questions: int) -> str:
    notebook = nbformat.read(REPOSITORY / "notebooks" / "01_reward_inspection.ipynb", 4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = (
                f'model = "{model}"\nquestions = {questions}\nalpha = 0.2\npatience = 900.0\n'
                f'runs = "{(root / "runs").as_posix()}"\n'
            )
    notebook.cells.insert(0, nbformat.v4.new_code_cell(DENSE_REWARD))
    nbformat.write(notebook, root / "notebooks" / name)
    return f"notebooks/{name}"


@pytest.fixture(scope="module")
def page(lab, tmp_path_factory) -> Iterator[Any]:
    port, token, root = lab
    path = put_notebook(root, "01.ipynb", MODEL, QUESTIONS)
    with open_page(tmp_path_factory.mktemp("browser")) as page:
        open_notebook(page, port, token, path)
        run_all_from_menu(page)
        page.wait_for_selector(f"{BENCH} .sarlab-tokens .sarlab-token")
        yield page


@pytest.fixture(scope="module")
def group(policy) -> list:
    return score_candidates(policy, read_examples(QUESTIONS)[:6])


def tab(page: Any, name: str) -> None:
    page.locator(f"{BENCH} li.lm-TabBar-tab", has_text=name).click()
    page.locator(f"{BENCH} li.lm-TabBar-tab.lm-mod-current", has_text=name).wait_for()
    page.wait_for_timeout(400)


def until(page: Any, state: Callable[[], bool], within_s: float = 180) -> None:
    """Wait for a state of the page, however long a busy machine takes."""
    end = time.monotonic() + within_s
    while not state():
        assert time.monotonic() < end, f"not within {within_s} s"
        page.wait_for_timeout(100)


def shoot(page: Any, pictures: Path, name: str, selector: str = BENCH) -> None:
    for dark in (False, True):
        set_theme(page, dark)
        view = page.locator(selector).first
        view.scroll_into_view_if_needed()
        path = pictures / f"workbench-{name}-{'dark' if dark else 'light'}.png"
        view.screenshot(path=path)
        assert path.stat().st_size > 10_000
        if UPDATE and name == "tokens":
            shutil.copy(path, REPOSITORY / "docs" / "pictures" / path.name)
    set_theme(page, False)


def shown(page: Any, label: str, where: str = BENCH) -> str:
    """The number that stands behind a label above the tokens."""
    return page.locator(f'{where} .sarlab-number[data-name="{label}"] b').first.text_content()


def token_text(page: Any, where: str = BENCH) -> str:
    tokens = page.locator(f"{where} .sarlab-tokens").first.locator("[data-index]")
    return "".join(tokens.all_text_contents())


def expected_text(score: AnswerScore) -> str:
    return "".join(visible(piece) or HALF_CHARACTER for piece in score.tokens)


def edited(page: Any, text: str) -> None:
    page.evaluate(TYPE_AND_TIME, [text, 240_000])


def test_the_table_ranks_as_the_library_does(page, group) -> None:
    rows = page.locator(f"{BENCH} .sarlab-ranking tbody tr")
    cells = [rows.nth(i).locator("td").all_text_contents()[:7] for i in range(rows.count())]
    order = sorted(group, key=lambda c: -c.score.sar)
    assert [row[1] for row in cells] == [c.label for c in order]
    for row, c in zip(cells, order, strict=True):
        assert row[2] == signed(c.score.sar)
        assert row[3:5] == [number(c.score.ppl_conditioned), number(c.score.ppl_standalone)]
        assert row[5] == str(c.score.length)
        assert row[6] == ("✓ right" if c.correct else "✗ wrong")


def test_tokens_show_the_answer_and_its_numbers(page, policy, group, pictures) -> None:
    page.locator(f"{BENCH} .sarlab-ranking tr", has_text="concise").first.click()
    (score,) = score_answers(policy, group[0].question, [group[0].score.answer], alternatives=True)
    page.wait_for_function(
        "(text) => document.querySelector('.sarlab-workbench textarea.sarlab-edit').value === text",
        arg=score.answer,
    )
    assert shown(page, "SAR") == signed(score.sar)
    assert shown(page, "ppl(a)") == number(score.ppl_standalone)
    assert token_text(page) == expected_text(score)
    token = page.locator(f"{BENCH} .sarlab-tokens").first.locator('[data-index="4"]')
    token.hover()
    card = page.locator(f"{BENCH} .sarlab-card").first
    text = card.text_content()
    for number_shown in (
        signed(score.logps_conditioned[4], 2),
        signed(score.logps_standalone[4], 2),
        f"{score.alternatives_conditioned[4].rank:,}",
        signed(score.alternatives_standalone[4].top[4][1], 2),
    ):
        assert number_shown in text
    # The same with the keyboard alone: Tab to the tokens, then the arrow keys.
    token.focus()
    page.keyboard.press("ArrowRight")
    assert signed(score.logps_conditioned[5], 2) in card.text_content()
    assert page.evaluate("document.activeElement.dataset.index") == "5"
    shoot(page, pictures, "tokens")


def test_a_span_is_brushed_and_gives_both_numbers(page, policy, group, pictures) -> None:
    score = group[0].score
    tokens = page.locator(f"{BENCH} .sarlab-tokens").first
    tokens.locator('[data-index="3"]').hover()
    page.mouse.down()
    tokens.locator('[data-index="7"]').hover()
    page.mouse.up()
    page.wait_for_selector(f"{BENCH} .sarlab-span b")
    ids = score.token_ids
    (deleted,) = score_answers(policy, score.question, [[*ids[:3], *ids[8:]]])
    numbers = page.locator(f"{BENCH} .sarlab-span b").all_text_contents()
    assert numbers[1:] == [signed(score.sar_without(3, 8)), signed(deleted.sar)]
    assert page.locator(f"{BENCH} .sarlab-selected").count() == 5
    shoot(page, pictures, "span")
    tokens.locator('[data-index="3"]').focus()
    page.keyboard.press("Escape")
    page.wait_for_function(
        "document.querySelectorAll('.sarlab-workbench .sarlab-selected').length === 0"
    )


def test_an_edit_is_scored_and_coloured(page, policy, group) -> None:
    text = group[0].score.answer.replace("80", "81")
    edited(page, text)
    (score,) = score_answers(policy, group[0].question, [text])
    assert shown(page, "SAR") == signed(score.sar)
    assert shown(page, "answer") == "✗ wrong"
    assert token_text(page) == expected_text(score)
    edited(page, " ")
    assert page.locator(f"{BENCH} .sarlab-tokens").first.locator("[data-index]").count() == 0
    assert page.locator(f"{BENCH} .sarlab-tokens").first.locator(".sarlab-number").count() == 0
    page.locator(f"{BENCH} .sarlab-message", has_text="empty").first.wait_for()
    page.locator(f"{BENCH} button", has_text="Undo edits").click()
    page.wait_for_function(
        """(text) => {
            const view = document.querySelector('.sarlab-workbench .sarlab-tokens');
            const shown = view.querySelectorAll('[data-index]').length > 0;
            return shown && view.querySelector('textarea').value === text;
        }""",
        arg=group[0].score.answer,
    )
    assert shown(page, "SAR") == signed(group[0].score.sar)


def test_markup_of_an_answer_stays_text(page, policy, group) -> None:
    text = (
        "<script>window.pwned=1</script> <img src=x onerror='window.pwned=2'> </span></div> "
        "<think>\u202e שלום \x00 🙂</think>"
    )
    edited(page, text)
    (score,) = score_answers(policy, group[0].question, [text])
    assert token_text(page) == expected_text(score)
    page.locator(f"{BENCH} button", has_text="Keep as new answer").click()
    page.locator(f"{BENCH} .sarlab-ranking tr", has_text="<script>").first.wait_for()
    assert page.evaluate("window.pwned") is None
    assert page.locator(f"{BENCH} .sarlab-tokens img, {BENCH} .sarlab-ranking img").count() == 0
    assert not page.errors
    page.locator(f"{BENCH} .sarlab-ranking tr", has_text="concise").first.click()


def test_two_answers_are_pinned_side_by_side(page, group, pictures) -> None:
    rows = page.locator(f"{BENCH} .sarlab-ranking tr")
    for kind, button in (("concise", 0), ("partly right", 1)):
        pin = rows.filter(has_text=kind).first.locator(".sarlab-pins button").nth(button)
        if pin.get_attribute("aria-pressed") == "false":
            pin.click()
    tab(page, "A/B")
    views = page.locator(f"{BENCH} .sarlab-compact")
    expected = {c.label: signed(c.score.sar) for c in group}
    for view, kind in ((views.nth(0), "concise"), (views.nth(1), "partly right")):
        view.locator(".sarlab-number b", has_text=expected[kind]).first.wait_for()
    cues = page.locator(f"{BENCH} .sarlab-compact .sarlab-cue")
    for view, cue in zip(views.all(), cues.all(), strict=True):
        steps = view.locator(".sarlab-steps")
        hidden = steps.evaluate("(e) => e.scrollHeight - e.clientHeight")
        assert (hidden > 4) == ("scroll for" in cue.text_content())
    shoot(page, pictures, "ab")


def test_alpha_moves_the_reward_designs(page, pictures) -> None:
    tab(page, "Designs")
    before = page.locator(f"{BENCH} .sarlab-designs table").text_content()
    slider = page.locator(f"{BENCH} .sarlab-designs .noUi-handle").first
    slider.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "(old) => document.querySelector('.sarlab-designs table').textContent !== old", arg=before
    )
    readout = page.locator(f"{BENCH} .sarlab-designs .widget-readout").first
    until(page, lambda: float(readout.text_content()) > 0.2)
    kinds = page.locator(f"{BENCH} .sarlab-designs tbody tr td:first-child").all_text_contents()
    everything = page.evaluate(
        "[...document.querySelectorAll('.sarlab-designs tbody tr')].map(r => r.textContent)"
    )
    answers = page.locator(f"{BENCH} .sarlab-ranking tbody tr")
    assert answers.count() == len(kinds) == len(everything)
    shoot(page, pictures, "designs")
    page.locator(f"{BENCH} .sarlab-designs button", has_text="all questions").click()
    page.wait_for_selector(f"{BENCH} .sarlab-designs .js-plotly-plot")
    page.wait_for_timeout(1500)
    shoot(page, pictures, "kinds")


def test_advantages_on_the_page_are_the_librarys(page, policy) -> None:
    # The second question's group was not touched: its table must be the library's to the digit.
    tab(page, "Designs")
    page.locator(f"{BENCH} .sarlab-designs button", has_text="this question").click()
    drafts = read_examples(QUESTIONS)[6:12]
    second = score_candidates(policy, drafts)
    page.locator(f"{BENCH} select").first.select_option(index=1)
    page.locator(f"{BENCH} .sarlab-designs tbody td", has_text="off topic").first.wait_for()
    alpha = float(page.locator(f"{BENCH} .sarlab-designs .widget-readout").first.text_content())
    designs = compare_designs(second, alpha)
    order = sorted(range(6), key=lambda i: -second[i].score.sar)
    expected = [
        [second[i].label, *(signed(design.advantages[i]) for design in designs)] for i in order
    ]

    def shown_rows() -> list[list[str]]:
        rows = page.evaluate(
            "[...document.querySelectorAll('.sarlab-designs tbody tr')]"
            ".map(r => [...r.cells].map(c => c.textContent.trim()))"
        )
        return [[row[0], *row[3:]] for row in rows]

    until(page, lambda: shown_rows() == expected)


def test_answers_are_sampled_and_sampling_stops(page, pictures) -> None:
    tab(page, "Sample")
    rows = page.locator(f"{BENCH} .sarlab-ranking tbody tr")
    before = rows.count()
    boxes = page.locator(f"{BENCH} .widget-tabs, {BENCH} .jupyter-widget-tab").locator("input")
    visible_boxes = [box for box in boxes.all() if box.is_visible()]
    visible_boxes[0].fill("64")
    visible_boxes[1].fill("60")
    visible_boxes[1].press("Tab")
    at_rest = page.locator(f"{BENCH} .sarlab-ranking").bounding_box()["y"]
    page.locator(f"{BENCH} button", has_text="Sample").click()
    growing = page.locator(f"{BENCH} .sarlab-growing").first
    growing.wait_for()
    assert visible_boxes[2].input_value() == "0"  # the seed that is being used
    table = page.locator(f"{BENCH} .sarlab-ranking").bounding_box()["y"]
    assert abs(table - at_rest) < 2, "the progress moved the table"
    page.locator(f"{BENCH} .sarlab-ranking tr", has_text="sampled").first.wait_for()
    # Before the pictures, which take as long as all 64 answers on a fast machine.
    page.locator(f"{BENCH} .sarlab-source .sarlab-job button", has_text="Stop").click()
    page.locator(f"{BENCH} .sarlab-source .sarlab-job", has_text="Stopped.").wait_for()
    shoot(page, pictures, "sample")
    assert before < rows.count() < before + 64
    until(page, lambda: visible_boxes[2].input_value() == "1")  # the next click draws others
    for row in rows.filter(has_text="sampled").all():
        tokens = int(row.locator("td").nth(5).text_content())
        assert tokens <= 60
        assert ("truncated" in row.text_content()) == (tokens == 60)


def test_the_run_browser_scrubs_and_audits(page, lab, pictures) -> None:
    tab(page, "Runs")
    runs = f"{BENCH} .sarlab-runs"
    page.wait_for_selector(f"{runs} .sarlab-tokens .sarlab-token")
    table = page.locator(f"{runs} .sarlab-table tbody")
    first = table.text_content()
    handle = page.locator(f"{runs} .noUi-handle").first
    handle.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "(old) => document.querySelector('.sarlab-runs tbody').textContent !== old",
        arg=first,
    )
    shoot(page, pictures, "runs")
    page.locator(f"{runs} button", has_text="correct, short, low SAR").click()
    page.locator(runs, has_text="correct answers (").first.wait_for()
    shoot(page, pictures, "audit")
    page.locator(f"{runs} button", has_text="one question over time").click()
    page.wait_for_selector(f"{runs} .sarlab-tokens .sarlab-token")


def test_the_view_is_exported(page, lab, pictures) -> None:
    _, _, root = lab
    tab(page, "Export")
    page.locator(f"{BENCH} button", has_text="HTML").click()
    page.locator(BENCH, has_text="Written: exports/answers.html").wait_for()
    document = (root / "notebooks" / "exports" / "answers.html").read_text()
    assert "<script" not in document and "rgba(0, 114, 178" in document
    assert f"Scored by {MODEL}" in document
    page.locator(f"{BENCH} button", has_text="PNG").click()
    page.locator(BENCH, has_text="Written: exports/answers.png").wait_for()
    assert (root / "notebooks" / "exports" / "answers.png").read_bytes()[:4] == b"\x89PNG"
    shoot(page, pictures, "export")
    assert not page.errors


def test_the_static_twin_survives_untrusted(page, pictures) -> None:
    # Displayed beside the widget, sanitised as JupyterLab does it: colours and tooltips are there.
    twin = page.locator(".jp-OutputArea-output .sarlab-static").first
    twin.scroll_into_view_if_needed()
    token = twin.locator("span[title]").first
    assert "with the question" in token.get_attribute("title")
    assert "rgba(" in token.evaluate("(e) => getComputedStyle(e).backgroundColor + 'rgba('")
    assert page.locator(".jp-OutputArea-output img").count() >= 1
    assert page.locator(".jp-OutputArea-output", has_text="Loading weights").count() == 0


WALK = """(where) => {
    const kinds = {
        BUTTON: 'button', SELECT: 'select', TEXTAREA: 'textarea', INPUT: 'input',
        SUMMARY: 'summary', LI: 'tab', TR: 'row',
    };
    const chosen = 'button, input, select, textarea, summary, [role=slider], li.lm-TabBar-tab, '
        + 'tr[tabindex], span.sarlab-token[data-index]';
    const found = new Set();
    for (const holder of document.querySelectorAll(where)) {
        for (const e of holder.querySelectorAll(chosen)) {
            if (e.closest('.jp-RenderedPlotly')) continue;
            const kind = e.getAttribute('role') === 'slider' ? 'slider'
                : e.classList.contains('sarlab-token') ? 'token' : kinds[e.tagName];
            const text = ['button', 'summary', 'tab'].includes(kind) ? e.textContent : '';
            const name = e.getAttribute('aria-label') || e.labels?.[0]?.textContent || text.trim()
                || e.title;
            const sum = e.classList.contains('sarlab-sum') ? e.title : name;
            found.add(`${kind}: ${sum.trim().replace(/\\s+/g, ' ')}`);
        }
    }
    return [...found];
}"""


def control_rows(notebook: str) -> list[str]:
    """Controls that the table names for a notebook; each names a test that is there."""
    tests = REPOSITORY / "tests"
    names = []
    for line in (tests / "browser_controls.md").read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if len(cells) != 5 or cells[0].strip() not in ("01", "02", "03", "04"):
            continue
        file, _, test = cells[4].strip().partition("::")
        assert f"def {test}(" in (tests / file).read_text("utf-8"), f"{cells[4]} is not there"
        if cells[0].strip() == notebook:
            names.append(cells[1])
    return names


def unlisted(page: Any, notebook: str, where: str = ".jp-Notebook .jp-OutputArea") -> list[str]:
    rows = control_rows(notebook)
    found = page.evaluate(WALK, where)
    nameless = [name for name in found if name.split(":", 1)[1].strip() == ""]
    assert not nameless, f"controls without a name: {nameless}"
    return [name for name in found if not any(fnmatch.fnmatchcase(name, row) for row in rows)]


def test_every_control_of_notebook_01_has_a_name_and_a_row(page) -> None:
    fold(page, open_it=True)
    assert unlisted(page, "01") == []
    fold(page, open_it=False)
    found = page.evaluate(WALK, ".jp-Notebook .jp-OutputArea")
    unused = [row for row in control_rows("01") if not fnmatch.filter(found, row)]
    assert unused == []


@pytest.mark.parametrize("number", ["02", "03", "04"])
def test_every_control_of_the_saved_notebooks_has_a_row(lab, tmp_path, number) -> None:
    port, token, root = lab
    (source,) = (REPOSITORY / "notebooks").glob(f"{number}_*.ipynb")
    shutil.copy(source, root / source.name)
    with open_page(tmp_path) as page:
        open_notebook(page, port, token, source.name)
        page.wait_for_timeout(1500)
        assert unlisted(page, number) == []
        folds = page.locator(".jp-OutputArea details")
        for one in folds.all()[:5]:
            summary = one.locator("summary").first
            if summary.is_visible():  # one inside a closed fold is not
                was = one.evaluate("(e) => e.open")
                summary.scroll_into_view_if_needed()
                page.wait_for_timeout(500)  # the page moves while cells above are drawn
                summary.click()
                until(page, lambda one=one, was=was: one.evaluate("(e) => e.open") is not was)
        assert number not in ("03", "04") or folds.count() > 0
        assert not page.errors


def fold(page: Any, open_it: bool) -> None:
    button = page.locator(f"{BENCH} .sarlab-fold-button")
    if (button.get_attribute("aria-expanded") == "true") != open_it:
        button.click()
        page.wait_for_function(
            "(open) => document.querySelector('.sarlab-fold-button')"
            ".getAttribute('aria-expanded') === open",
            arg=str(open_it).lower(),
        )


def field(page: Any, label: str, where: str = BENCH) -> Any:
    return page.locator(where).first.get_by_label(label, exact=True).first


def first_question(page: Any) -> None:
    field(page, "Question").select_option(index=0)
    text = read_examples(QUESTIONS)[0].question[:60]
    page.locator(f"{BENCH} .sarlab-source .widget-html", has_text=text).first.wait_for()
    page.locator(f"{BENCH} .sarlab-ranking tr", has_text="concise").first.wait_for()
    page.wait_for_timeout(300)


def test_a_question_is_chosen_from_the_list(page, group) -> None:
    field(page, "Question").select_option(index=1)
    second = read_examples(QUESTIONS)[6]
    page.locator(f"{BENCH} .sarlab-source", has_text=second.question[:60]).first.wait_for()
    page.wait_for_function(
        "(gold) => [...document.querySelectorAll('.sarlab-source input')]"
        ".some((input) => input.value === gold)",
        arg=second.gold,
    )
    first_question(page)


def test_the_right_answer_judges(page) -> None:
    first_question(page)
    gold = field(page, "Right answer")
    before = gold.input_value()
    gold.fill("12345")
    gold.press("Tab")
    right = page.locator(f"{BENCH} .sarlab-ranking td", has_text="✓ right")
    page.wait_for_function(
        "document.querySelectorAll('.sarlab-ranking tbody').length === 1 && "
        "!document.querySelector('.sarlab-ranking tbody').textContent.includes('✓')"
    )
    gold.fill(before)
    gold.press("Tab")
    right.first.wait_for()


def test_another_model_is_named_or_refused(page) -> None:
    box = field(page, "Model")
    box.fill("no-such-model")
    box.press("Tab")
    page.locator(
        f"{BENCH} .sarlab-source .sarlab-job", has_text="'no-such-model' is not known"
    ).wait_for()
    page.wait_for_function(
        "(name) => document.querySelector('.sarlab-source input').value === name", arg=MODEL
    )
    words = page.locator(f"{BENCH} .sarlab-source .sarlab-job .widget-html-content")
    assert words.evaluate("(e) => e.scrollWidth <= e.clientWidth + 1"), "the error is clipped"


def test_a_second_model_is_named_or_refused(page) -> None:
    tab(page, "A/B")
    box = field(page, "Model for B")
    box.fill("no-such-second")
    box.press("Tab")
    page.locator(f"{BENCH} .sarlab-source .sarlab-job", has_text="'no-such-second'").wait_for()
    box.fill("")
    box.press("Tab")
    tab(page, "Tokens")


def test_a_question_is_typed_and_answers_are_pasted(page) -> None:
    fold(page, open_it=True)
    field(page, "New question").fill("Tom has 4 pens and finds 5. How many has he?")
    field(page, "Its answer").fill("9")
    page.locator(f"{BENCH} button", has_text="Open question").click()
    page.locator(f"{BENCH} .sarlab-ranking", has_text="No answers yet").wait_for()
    page.locator(f"{BENCH} .sarlab-fold-box").get_by_label("Answers", exact=True).fill(
        "4 + 5 = 9.\nAnswer: 9\n---\nAnswer: 8"
    )
    page.locator(f"{BENCH} button", has_text="Add answers").click()
    page.locator(f"{BENCH} .sarlab-status", has_text="2 answers to 1 question").first.wait_for()
    rows = page.locator(f"{BENCH} .sarlab-ranking tbody tr")
    page.wait_for_function("document.querySelectorAll('.sarlab-ranking tbody tr').length === 2")
    assert sorted(rows.locator("td:nth-child(7)").all_text_contents()) == ["✓ right", "✗ wrong"]
    fold(page, open_it=False)
    first_question(page)


def test_a_file_is_loaded(page, tmp_path) -> None:
    fold(page, open_it=True)
    path = tmp_path / "my answers.jsonl"
    good = '{"question": "What is 1 + 1?", "answer": "Answer: 2", "label": "mine"}\n' * 2
    button = page.locator(f"{BENCH} button", has_text="Load a file")
    path.write_text("{no json\n")
    with page.expect_file_chooser() as chooser:
        button.click()
    chooser.value.set_files(path)
    page.locator(f"{BENCH} .sarlab-source .sarlab-status", has_text="not valid JSON").wait_for()
    path.write_text(good)
    with page.expect_file_chooser() as chooser:
        button.click()
    chooser.value.set_files(path)
    page.locator(
        f"{BENCH} .sarlab-status", has_text="my answers.jsonl: 1 answer to 1 question (mine 1)"
    ).first.wait_for()
    path.write_text('{"question": "x"}\n')
    with page.expect_file_chooser() as chooser:
        button.click()
    chooser.value.set_files(path)
    message = page.locator(f"{BENCH} .sarlab-source .sarlab-status", has_text="no field").first
    message.wait_for()
    assert "my answers.jsonl, line 1" in message.text_content()
    assert "tmp" not in message.text_content()
    fold(page, open_it=False)
    first_question(page)


def test_questions_of_a_task_are_listed(page) -> None:
    fold(page, open_it=True)
    before = field(page, "Question").locator("option").count()
    field(page, "Task").fill("word_problems")
    page.locator(f"{BENCH} button", has_text="Load 20 questions").click()
    page.locator(
        f"{BENCH} .sarlab-status", has_text="20 questions of word_problems"
    ).first.wait_for()
    assert field(page, "Question").locator("option").count() == before + 20
    fold(page, open_it=False)


def test_a_step_is_selected_by_its_sum(page, group) -> None:
    first_question(page)
    tab(page, "Tokens")
    page.locator(f"{BENCH} .sarlab-sum").first.click()
    page.wait_for_selector(f"{BENCH} .sarlab-span b")
    steps = page.locator(f"{BENCH} .sarlab-step").first.locator("[data-index]").count()
    assert page.locator(f"{BENCH} .sarlab-selected").count() == steps
    page.locator(f"{BENCH} .sarlab-tokens").first.locator('[data-index="0"]').focus()
    page.keyboard.press("Escape")
    page.keyboard.press("s")  # the same by keyboard
    page.wait_for_function(
        "(n) => document.querySelectorAll('.sarlab-workbench .sarlab-selected').length === n",
        arg=steps,
    )
    page.keyboard.press("Escape")


def test_tabs_open_by_mouse_and_keyboard(page) -> None:
    tab(page, "Sample")
    tab(page, "Tokens")
    page.locator(f"{BENCH} li.lm-TabBar-tab", has_text="Tokens").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_function(
        "document.querySelector('.sarlab-workbench li.lm-mod-current').textContent === 'A/B'"
    )
    tab(page, "Tokens")


def test_rewards_and_advantages_take_turns(page) -> None:
    first_question(page)
    tab(page, "Designs")
    page.locator(f"{BENCH} .sarlab-designs button", has_text="rewards").click()
    cell = page.locator(f"{BENCH} .sarlab-designs tr", has_text="concise").locator("td").nth(3)
    until(page, lambda: cell.text_content().strip() == "+1.000")
    page.locator(f"{BENCH} .sarlab-designs button", has_text="advantages").click()
    until(page, lambda: cell.text_content().strip() != "+1.000")
    tab(page, "Tokens")


WATCH_FRAMES = """() => { window.longest = 0; let last = performance.now();
    const tick = (now) => { window.longest = Math.max(window.longest, now - last);
        last = now; requestAnimationFrame(tick); }; requestAnimationFrame(tick); }"""


def test_designs_are_chosen_and_a_dense_one_colours_the_tokens(page) -> None:
    first_question(page)
    tab(page, "Designs")
    page.locator(f"{BENCH} .sarlab-designs button", has_text="this question").click()
    box = field(page, "Designs", f"{BENCH} .sarlab-designs")
    heads = page.locator(f"{BENCH} .sarlab-designs thead th")
    before = heads.all_text_contents()
    box.select_option(["+ α·per_token", "+ α·SAR"])
    until(page, lambda: heads.all_text_contents()[3:] == ["+ α·SAR", "+ α·per_token"])
    titles = page.locator(f"{BENCH} .sarlab-designs .js-plotly-plot .annotation-text")
    until(page, lambda: "+ α·per_token" in titles.all_text_contents())  # the figure too
    dense = f"{BENCH} .sarlab-designs .sarlab-tokens"
    page.locator(f"{dense} .sarlab-head", has_text="Σ bonus").wait_for()
    tints = page.locator(f"{dense} [data-index]").evaluate_all(
        "(all) => all.map((e) => e.style.backgroundColor)"
    )
    assert tints[0] == "rgba(0, 114, 178, 0.5)"  # the largest has the full colour
    assert set(tints[1:]) == {"rgba(0, 114, 178, 0)"}
    box.select_option(before[3:])
    until(page, lambda: heads.all_text_contents() == before)
    assert not page.locator(dense).is_visible()
    tab(page, "Tokens")


def test_another_trainers_run_is_opened(page, lab) -> None:
    folder = lab[2] / "verl"
    folder.mkdir()
    for step in (1, 2):
        rows = [
            {"input": f"What is {n} + {step}?", "output": f"Answer: {k}", "score": float(k == 3)}
            | {"gts": str(n + step), "step": step}
            for n in (1, 2)
            for k in (3, 3, 4)
        ]
        (folder / f"{step}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tab(page, "Runs")
    runs = f"{BENCH} .sarlab-runs"
    path = field(page, "Rollouts", runs)
    path.fill("no/such/folder")
    path.press("Enter")
    note = f"{runs} .sarlab-status"
    page.locator(note, has_text="no/such/folder does not exist").wait_for()
    path.fill(str(folder))
    path.press("Enter")
    page.locator(note, has_text="verl rollout data: 12 answers in 4 groups").wait_for()
    field(page, "Question", runs).select_option("What is 1 + 2? (1 step)")
    rewards = page.locator(f"{runs} .sarlab-table tbody td:nth-child(6)")
    until(page, lambda: rewards.all_text_contents() == ["+1.00", "+1.00", "+0.00"])
    page.locator(f"{runs} button", has_text="Open in the workbench").click()
    said = page.locator(f"{BENCH} .sarlab-source .sarlab-status", has_text=f"Here {MODEL} scores")
    said.first.wait_for()
    rows = page.locator(f"{BENCH} .sarlab-ranking tbody tr")
    until(page, lambda: rows.count() == 3)
    labels = rows.locator("td:nth-child(2)").all_text_contents()
    here = "verl, step 2, reward"
    assert sorted(labels) == [f"{here} +0.00", *[f"{here} +1.00"] * 2]
    verdicts = rows.locator("td:nth-child(7)").all_text_contents()
    assert sorted(verdicts) == ["✓ right", "✓ right", "✗ wrong"]
    tab(page, "Runs")
    path.fill("")
    path.press("Enter")
    page.wait_for_selector(f"{runs} .sarlab-tokens .sarlab-token")
    first_question(page)


def test_ten_thousand_logged_answers_are_listed_at_once(page, lab) -> None:
    folder = lab[2] / "large"
    folder.mkdir()
    for step in range(1, 11):
        rows = [
            {"input": f"What is {n} + {step}?", "output": f"{n} + {step} = {n + k}.\n" * 20}
            | {"score": float(k == step), "gts": str(n + step), "step": step}
            for n in range(125)
            for k in range(8)
        ]
        (folder / f"{step}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tab(page, "Runs")
    runs = f"{BENCH} .sarlab-runs"
    path = field(page, "Rollouts", runs)
    path.fill(str(folder))
    page.evaluate(WATCH_FRAMES)
    began = time.monotonic()
    path.press("Enter")
    page.locator(f"{runs} .sarlab-status", has_text="10,000 answers in 1,250").wait_for()
    listed = field(page, "Question", runs).locator("option")
    until(page, lambda: listed.count() == 1250)
    seconds, longest = time.monotonic() - began, page.evaluate("window.longest")
    print(f"\n10,000 answers listed in {seconds:.1f} s; the page's longest pause: {longest:.0f} ms")
    assert seconds < 5 and longest < 2000
    path.fill("")
    path.press("Enter")
    page.wait_for_selector(f"{runs} .sarlab-tokens .sarlab-token")


def test_runs_are_filtered_by_arm_and_seed(page) -> None:
    tab(page, "Runs")
    runs = f"{BENCH} .sarlab-runs"
    listed = field(page, "Run", runs).locator("option")
    assert listed.count() == 2
    field(page, "Arm", runs).select_option("other")
    page.wait_for_function(
        "[...document.querySelectorAll('.sarlab-workbench .sarlab-runs select')]"
        ".some((s) => s.options.length === 1 && s.value.startsWith('other-s1'))"
    )
    field(page, "Arm", runs).select_option("all")
    field(page, "Seed", runs).select_option("0")
    until(
        page,
        lambda: (
            [text.replace("\xa0", " ") for text in listed.all_text_contents() if text]
            == ["sa_grpo-s0 (tokens)"]
        ),
    )
    field(page, "Seed", runs).select_option("all")
    until(page, lambda: listed.count() == 2)
    field(page, "Run", runs).select_option(index=0)
    page.wait_for_selector(f"{runs} .sarlab-tokens .sarlab-token")


def test_questions_of_a_run_are_searched_filtered_and_sorted(page, lab) -> None:
    tab(page, "Runs")
    runs = f"{BENCH} .sarlab-runs"
    questions = field(page, "Question", runs)
    rows = read_audit(lab[2] / "runs" / "sa_grpo-s0")

    def listed(**chosen: str) -> Callable[[], bool]:
        """Whether the page lists the questions that the library chooses, in its order."""
        texts = [one_line(text, 100) for text in choose_questions(rows, **chosen).values()]

        def same() -> bool:
            on_page = [
                t.replace("\xa0", " ") for t in questions.locator("option").all_text_contents()
            ]
            return [t.rpartition(" (")[0] for t in on_page if t] == texts

        return same

    until(page, listed())
    word = questions.locator("option").nth(1).text_content().split()[0]
    assert len(choose_questions(rows, search=word)) > 0
    search = field(page, "Search", runs)
    for text in (word, ""):
        search.fill(text)
        search.press("Tab")
        until(page, listed(search=text))
    for order in ("longest", "shortest", "as logged"):
        field(page, "Sort", runs).select_option(order)
        until(page, listed(order=order))
    counts = []
    for shown_ones in ("wrong at the end", "right at the end", "all"):
        field(page, "Show", runs).select_option(shown_ones)
        until(page, listed(shown=shown_ones))
        counts.append(sum(map(bool, questions.locator("option").all_text_contents())))
    assert counts[0] + counts[1] == counts[2] == 3


def test_the_audit_says_what_it_looked_for_and_widens(page) -> None:
    tab(page, "Runs")
    runs = f"{BENCH} .sarlab-runs"
    page.locator(f"{runs} button", has_text="correct, short, low SAR").click()
    for name, target in (("tokens ≤", 20), ("SAR ≤", -1)):
        handle = page.locator(f'{runs} [role=slider][aria-label="{name}"]')
        handle.focus()
        while float(handle.get_attribute("aria-valuenow")) > target:
            handle.press("ArrowLeft")
    message = page.locator(f"{runs} .sarlab-status", has_text="correct answers (").first
    asked = "at most 20 tokens and a SAR of at most −1.00"
    page.locator(f"{runs} .sarlab-status", has_text=asked).first.wait_for()
    assert message.text_content().startswith("0 of ")
    page.locator(f"{runs} button", has_text="Widen to").click()
    page.wait_for_selector(f"{runs} .sarlab-table tbody tr")
    page.locator(f"{runs} button", has_text="one question over time").click()


def test_a_logged_answer_opens_in_the_workbench(page) -> None:
    tab(page, "Runs")
    page.locator(f"{BENCH} .sarlab-runs button", has_text="Open in the workbench").click()
    opened = f"{BENCH} .sarlab-ranking tr[aria-selected=true]"
    page.locator(opened, has_text="sa_grpo-s0, step").wait_for()
    group = page.locator(f"{BENCH} .sarlab-ranking tbody tr", has_text="sa_grpo-s0, step")
    until(page, lambda: group.count() == 6)  # all answers of the group
    page.wait_for_function(  # the reader is taken there
        """row => { const box = document.querySelector(row).getBoundingClientRect();
        return box.top > 0 && box.bottom < innerHeight; }""",
        arg=opened,
    )
    page.locator(f"{BENCH} .sarlab-source", has_text=f"Here {MODEL} scores them").wait_for()
    page.wait_for_function(
        "document.querySelector('.sarlab-workbench li.lm-mod-current').textContent === 'Tokens'"
    )
    tab(page, "Runs")
    page.locator(f"{BENCH} button", has_text="Open with the run's model").click()
    page.locator(f"{BENCH} .sarlab-source", has_text="final model scores them here").wait_for()
    until(page, lambda: group.count() == 6)
    box = field(page, "Model")
    assert box.input_value().endswith("sa_grpo-s0")
    box.fill(MODEL)
    box.press("Tab")
    until(
        page,
        lambda: (
            group.count() == 6
            and not page.locator(f"{BENCH} .sarlab-source .progress").is_visible()
        ),
    )
    first_question(page)


def test_a_group_is_jumped_to_noted_and_set_beside_another_step(page, lab, pictures) -> None:
    tab(page, "Runs")
    runs = f"{BENCH} .sarlab-runs"
    said = page.locator(f"{runs} .sarlab-status").first
    for kind in ("all wrong", "all right", "most spread"):
        page.locator(f"{runs} button", has_text=kind).focus()
        page.keyboard.press("Enter")
        until(page, lambda kind=kind: f"{kind}" in said.text_content())
    field(page, "Beside step", runs).select_option("2")
    tables = page.locator(f"{runs} .sarlab-table")
    until(page, lambda: tables.count() == 2 and tables.nth(1).is_visible())
    steps = tables.nth(1).locator("tbody td:first-child").all_text_contents()
    assert steps == ["2"] * 6
    views = page.locator(f"{runs} .sarlab-tokens")
    until(page, lambda: views.nth(1).locator("[data-index]").count() > 0)
    left, right = (views.nth(k).bounding_box() for k in (0, 1))
    assert abs(left["y"] - right["y"]) < 2 and left["x"] + left["width"] <= right["x"]
    note = field(page, "Note", runs)
    note.fill("looks guessed")
    note.press("Tab")
    page.locator(f"{runs} .sarlab-table td", has_text="looks guessed").first.wait_for()
    file = lab[2] / "runs" / "sa_grpo-s0" / "annotations.jsonl"
    assert json.loads(file.read_text())["note"] == "looks guessed"
    for width in (1440, 1000):
        page.set_viewport_size({"width": width, "height": 1500})
        page.wait_for_timeout(600)
        shoot(page, pictures, f"beside-{width}", runs)
        found = page.evaluate(CONTRAST, runs)
        assert min(v for k, v in found.items() if k not in ("mark", "line")) >= 4.5, found
    page.set_viewport_size({"width": 1280, "height": 1500})
    note.fill("")
    note.press("Tab")
    field(page, "Beside step", runs).select_option(index=0)
    until(page, lambda: not tables.nth(1).is_visible())


def test_terms_are_one_click_away(page) -> None:
    page.locator(f"{BENCH} summary", has_text="What the terms mean").click()
    table = page.locator(f"{BENCH} .sarlab-terms table")
    assert table.is_visible() and "perplexity" in table.text_content()
    page.locator(f"{BENCH} summary", has_text="What the terms mean").click()


def test_the_workbench_answers_while_it_samples(page) -> None:
    first_question(page)
    tab(page, "Sample")
    field(page, "Answers", f"{BENCH} .widget-tab").fill("64")
    field(page, "Max tokens").fill("120")
    field(page, "Max tokens").press("Tab")
    page.locator(f"{BENCH} button", has_text="Sample").click()
    page.locator(f"{BENCH} .sarlab-source .sarlab-job", has_text="Sampling answer").wait_for()
    tab(page, "Tokens")
    page.locator(f"{BENCH} .sarlab-ranking tr", has_text="no thought").first.click()
    page.wait_for_function(
        "document.querySelector('.sarlab-workbench textarea.sarlab-edit').value"
        ".startsWith('Answer:')"
    )
    edited(page, "Answer: 81, I think")
    assert "81" in token_text(page)
    tab(page, "Designs")
    page.locator(f"{BENCH} .sarlab-designs button", has_text="rewards").click()
    page.locator(f"{BENCH} .sarlab-source .sarlab-job button", has_text="Stop").click()
    page.locator(f"{BENCH} .sarlab-source .sarlab-job", has_text="Stopped.").wait_for()
    page.locator(f"{BENCH} .sarlab-designs button", has_text="advantages").click()
    tab(page, "Tokens")
    first_question(page)


def test_few_tabs_lead_from_the_question_to_the_first_token(page) -> None:
    first_question(page)
    tab(page, "Tokens")
    field(page, "Question").focus()
    presses, there = 0, False
    while presses < 6 and not there:
        page.keyboard.press("Tab")
        presses += 1
        there = page.evaluate("document.activeElement.matches('.sarlab-token[data-index]')")
    print(f"\n{presses} presses of Tab from the question to the first token")
    assert there
    name = page.evaluate("document.activeElement.getAttribute('aria-label')")
    for part in ("token 1 of", "Δ log p", "with the question", "without"):
        assert part in name
    assert page.locator(f"{BENCH} .sarlab-status:not([role=status])").count() == 0


# Contrast of each text on what lies beneath it, from the styles that the page computed.
CONTRAST = """(where) => {
    const parse = (text) => {
        const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
        return [r, g, b, a];
    };
    const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a),
        b * a + B * (1 - a), 1];
    const light = ([r, g, b]) => [r, g, b].map((x) => x / 255)
        .map((x) => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
        .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
    const ratio = (one, two) => {
        const [low, high] = [light(one), light(two)].sort((x, y) => x - y);
        return (high + 0.05) / (low + 0.05);
    };
    const ground = (e) => {
        const layers = [];
        for (let p = e; p; p = p.parentElement) {
            const colour = parse(getComputedStyle(p).backgroundColor);
            layers.push(colour);
            if (colour[3] === 1) break;
        }
        return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255, 1]);
    };
    const found = {};
    const note = (name, value) => { found[name] = Math.min(found[name] ?? 99, value); };
    for (const holder of document.querySelectorAll(where)) {
        const walker = document.createTreeWalker(holder, NodeFilter.SHOW_TEXT);
        while (walker.nextNode()) {
            const e = walker.currentNode.parentElement;
            if (!walker.currentNode.textContent.trim() || !e.checkVisibility()) continue;
            if (['STYLE', 'SCRIPT', 'OPTION'].includes(e.tagName)) continue;
            const style = getComputedStyle(e);
            const svg = e.closest('svg');
            let colour = parse(svg ? style.fill : style.color);
            for (let p = e; p && p !== holder; p = p.parentElement)
                colour[3] *= Number(getComputedStyle(p).opacity);
            const below = ground(svg?.closest('.svg-container')?.querySelector('.main-svg') ?? e);
            const name = e.classList.contains('sarlab-mark') ? 'mark'
                : svg ? 'figure text' : e.className && typeof e.className === 'string'
                ? e.className.split(' ')[0] : e.tagName;
            note(name, ratio(over(colour, below), below));
        }
        for (const e of holder.querySelectorAll('.sarlab-token')) {
            const style = getComputedStyle(e);
            if (style.borderBottomColor.endsWith(', 0)') || !e.checkVisibility()) continue;
            const below = ground(e.parentElement);
            note('line', ratio(over(parse(style.borderBottomColor), below), below));
        }
    }
    return found;
}"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_contrast_of_text_and_marks(page, dark) -> None:
    set_theme(page, dark)
    least: dict[str, float] = {}
    for name in ("Tokens", "A/B", "Designs", "Sample", "Runs", "Export"):
        tab(page, name)
        fold(page, open_it=name == "Tokens")
        page.wait_for_timeout(500)
        found = page.evaluate(CONTRAST, f"{BENCH}, .sarlab-static")
        least = {k: min(v, least.get(k, 99)) for k, v in {**least, **found}.items()}
    set_theme(page, False)
    tab(page, "Tokens")
    print(f"\n{'dark' if dark else 'light'}: least {min(least.values()):.2f}", least)
    poor = {k: round(v, 2) for k, v in least.items() if v < (3.0 if k in ("mark", "line") else 4.5)}
    assert not poor


TREE = """(root) => [...root.querySelectorAll('.sarlab-token[data-index], .sarlab-token[title]')]
    .map((e) => [e.textContent, e.className, e.style.backgroundColor,
        [...e.querySelectorAll('.sarlab-mark')].map((m) => m.textContent)])"""


def test_the_static_twin_has_the_markup_of_the_live_view(tmp_path) -> None:
    from test_widgets_text import fake_score

    from sarlab.display.token_view import answer_view, legend, payload
    from sarlab.widgets.html import answer_html

    pieces = ["<b>", " two\n", "", "🙂", "\u202e", ". ", "Answer", ": 1"]
    view = answer_view(fake_score(pieces, [3.0, -1.5, 0.0, 0.9, -0.2, 1.0, -4.0, 9.0]), True)
    script = (REPOSITORY / "sarlab/widgets/static/tokens.js").read_text("utf-8")
    with open_page(tmp_path) as page:
        page.set_content("<div id=live></div><div id=twin></div>")
        live = page.evaluate(
            """async ([script, payload, legend]) => {
                const url = URL.createObjectURL(new Blob([script], { type: 'text/javascript' }));
                const { drawTokens } = await import(url);
                drawTokens(document.querySelector('#live'), payload, { legend });
            }""",
            [script, payload(view), legend()],
        )
        page.evaluate(
            "(html) => { document.querySelector('#twin').innerHTML = html }", answer_html(view)
        )
        live, twin = (page.locator(name).evaluate(TREE) for name in ("#live", "#twin"))
        assert len(live) == len(pieces) and live == twin
        numbers = page.locator("#live .sarlab-numbers b").all_text_contents()
        assert numbers == [value for _, value in view.numbers]
        scales = [
            page.locator(f"{name} .sarlab-legend").evaluate(
                "(e) => [...e.children].map((c) => [c.textContent.trim(), c.className])"
            )
            for name in ("#live", "#twin")
        ]
        assert scales[0] == scales[1] and len(scales[0]) == 10


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_wide_table_shows_that_it_scrolls(tmp_path, scheme) -> None:
    table = html_table(pd.DataFrame([range(10**6, 10**6 + 30)] * 3))
    with open_page(tmp_path) as page:
        page.set_content(
            f'<body style="margin:0;color-scheme:{scheme};background:Canvas"><main '
            f'style="width:300px">{table}</main>'
        )

        def edges() -> list[bool]:
            """Whether the left and the right side of the first row differ from the page."""
            shot = Image.open(io.BytesIO(page.screenshot())).convert("L")
            y = int(page.locator("td").first.bounding_box()["y"]) + 1  # above its text
            return [abs(shot.getpixel((x, y)) - shot.getpixel((600, y))) > 20 for x in (1, 298)]

        assert edges() == [False, True]
        page.locator("main div").evaluate("(e) => { e.scrollLeft = 40 }")
        assert edges() == [True, True]
        page.locator("main div").evaluate("(e) => { e.scrollLeft = 9999 }")
        assert edges() == [True, False]
        page.locator("main").evaluate("(e) => { e.style.width = '9000px' }")
        assert edges()[0] is False


def test_a_long_answer_opens_without_freezing(lab, tmp_path) -> None:
    port, token, root = lab
    notebook = nbformat.v4.new_notebook()
    # Without a kernel's name JupyterLab would ask for one, and wait.
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    notebook.cells = [
        nbformat.v4.new_code_cell(
            "import sys; sys.path.insert(0, TESTS)\n"
            "from test_widgets_text import fake_score\n"
            "from sarlab.widgets.live import TokenPanel\n"
            "pieces = ['<think>'] + [f' w{i}' + ('.\\n' if i % 12 == 11 else '') "
            "for i in range(3998)] + ['</think>']\n"
            "panel = TokenPanel()\npanel".replace("TESTS", repr(str(REPOSITORY / "tests")))
        ),
        nbformat.v4.new_code_cell("panel.show(fake_score(pieces), seq=1)"),
    ]
    nbformat.write(notebook, root / "long.ipynb")
    with open_page(tmp_path, height=900) as page:
        open_notebook(page, port, token, "long.ipynb")
        page.evaluate(WATCH_FRAMES)
        run_all_from_menu(page)
        page.wait_for_selector(".sarlab-fold")
        page.wait_for_timeout(500)
        assert page.locator(".sarlab-fold").count() == 334
        assert page.locator(".sarlab-token[data-index]").count() < 100
        page.locator(".sarlab-fold summary").nth(200).click()
        assert page.locator(".sarlab-fold").nth(200).locator("[data-index]").count() == 12
        # By keyboard: one stop for all folds, arrow keys and End inside, Enter opens.
        assert page.locator('.sarlab-fold summary[tabindex="0"]').count() == 1
        page.locator(".sarlab-fold summary").first.focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("End")
        page.keyboard.press("Enter")
        last = page.locator(".sarlab-fold").nth(333)
        last.locator("[data-index]").first.wait_for()
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.dataset.index") == "3997"  # 1 + 333 × 12
        longest = page.evaluate("window.longest")
        print(f"\n4,000 tokens: the page's longest pause was {longest:.0f} ms")
        assert longest < 2000


# When a reader first sees what, in ms; the fourth cell of code loads the model.
MARK_TIMES = """() => {
    const marks = window.marks = {};
    const look = () => {
        const cells = [...window.jupyterapp.shell.currentWidget.content.model.cells];
        const seen = {
            example: document.querySelector('.sarlab-static .sarlab-token'),
            loaded: cells.filter((c) => c.type === 'code')[3].sharedModel.execution_count,
            table: [...document.querySelectorAll('.jp-OutputArea th')]
                .some((cell) => cell.textContent === 'mean SAR'),
            view: document.querySelector('.sarlab-workbench .sarlab-tokens .sarlab-token'),
        };
        for (const name in seen) if (seen[name] && !marks[name]) marks[name] = performance.now();
        setTimeout(look, 50);
    };
    look();
}"""


def test_speed_from_the_input_event_to_the_repainted_token(lab, tmp_path) -> None:
    port, token, root = lab
    try:
        load_policy("smollm2-135m")
    except ValueError as error:
        pytest.skip(str(error))
    path = put_notebook(root, "speed.ipynb", "smollm2-135m", 33)
    texts = [
        "The full boxes hold 14 * 6 = 84 muffins. With the 5 loose ones she has 84 + 5 = 89. After "
        f"giving 9 of them away to the shelter, 89 - 9 = 80 muffins {word}.\nAnswer: 80"
        for word in ("stay", "remain", "are left", "stand", "wait", "rest", "lie", "are hers")
    ]
    fresh = [
        f"{start} she bakes {n} boxes of six, so that makes {6 * n} muffins in total, and 5 more "
        f"lie on the tray. We add them and get {6 * n + 5}. The shelter takes 9, so she keeps "
        f"{6 * n - 4} in the end.\nAnswer: {6 * n - 4}"
        for n, start in enumerate(("On Saturday", "Today", "First", "Look:", "Well,"), start=14)
    ]
    with open_page(tmp_path) as page:
        open_notebook(page, port, token, path)
        page.evaluate(MARK_TIMES)
        run_all_from_menu(page)
        page.wait_for_selector(f"{BENCH} .sarlab-tokens .sarlab-token")
        page.wait_for_function("() => window.marks.view")
        seen = page.evaluate("window.marks")
        edited(page, texts[-1])
        near_end = [page.evaluate(TYPE_AND_TIME, [text, 240_000]) for text in texts]
        tokens = page.locator(f'{BENCH} .sarlab-number[data-name="tokens"] b').first.text_content()
        whole = [page.evaluate(TYPE_AND_TIME, [text, 240_000]) for text in fresh]
    table_s, view_s = ((seen[what] - seen["loaded"]) / 1000 for what in ("table", "view"))
    print(f"\nafter the model is loaded: first table {table_s:.1f} s, workbench {view_s:.1f} s")
    assert seen["example"] < seen["loaded"] and max(table_s, view_s) < 10
    edit_ms, whole_ms = statistics.median(near_end), statistics.median(whole)
    rescorer = Rescorer(load_policy("smollm2-135m"), read_examples(1)[0].question)
    alone = []
    for text in texts:  # the library on the same machine with the same load: a yardstick
        began = time.perf_counter()
        rescorer.score(text)
        alone.append(1000 * (time.perf_counter() - began))
    library_ms = statistics.median(alone)
    print(
        f"\n{tokens} tokens, smollm2-135m, in the browser: one word near the end {edit_ms:.0f} ms "
        f"(median of {len(near_end)}, worst {max(near_end):.0f}); a new answer {whole_ms:.0f} ms "
        f"(median of {len(whole)}, worst {max(whole):.0f}); the library alone {library_ms:.0f} ms"
    )
    assert edit_ms < 500
    assert whole_ms < max(1500, 9 * library_ms)
