"""Notebook 01 in a real browser: what a reader does, and the numbers that he then sees.

With ``SARLAB_UPDATE_PICTURES=1`` the screenshots go to docs/pictures (made with smollm2-135m);
otherwise to the test's own folder.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
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

from sarlab import Policy, load_policy, load_task, score_answers
from sarlab.answers import AnswerScore
from sarlab.display.text import HALF_CHARACTER, number, signed, visible
from sarlab.widgets.candidates import read_examples, score_candidates
from sarlab.widgets.designs import compare_designs

pytestmark = [pytest.mark.browser, pytest.mark.slow]
UPDATE = os.environ.get("SARLAB_UPDATE_PICTURES") == "1"
MODEL = "smollm2-135m" if UPDATE else "tiny"
QUESTIONS = 2
BENCH = ".sarlab-workbench"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = REPOSITORY / "docs" / "pictures" if UPDATE else tmp_path_factory.mktemp("pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy(MODEL)


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[tuple[int, str, Path]]:
    chromium_path()  # skip before anything is started
    root = tmp_path_factory.mktemp("lab")
    (root / "notebooks").mkdir()
    tiny = load_policy("tiny")
    make_run(
        root / "runs" / "example", tiny, load_task("word_problems").heldout(3), group=6, limit=160
    )
    with jupyter_lab(root, tmp_path_factory.mktemp("server")) as (port, token):
        yield port, token, root


def put_notebook(root: Path, name: str, model: str, questions: int) -> str:
    notebook = nbformat.read(REPOSITORY / "notebooks" / "01_reward_inspection.ipynb", 4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = (
                f'model = "{model}"\nquestions = {questions}\nalpha = 0.2\nruns = "../runs"\n'
            )
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
    page.wait_for_timeout(400)


def shoot(page: Any, pictures: Path, name: str, selector: str = BENCH) -> None:
    for dark in (False, True):
        set_theme(page, dark)
        view = page.locator(selector).first
        view.scroll_into_view_if_needed()
        path = pictures / f"workbench-{name}-{'dark' if dark else 'light'}.png"
        view.screenshot(path=path)
        assert path.stat().st_size > 10_000
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
    page.evaluate(TYPE_AND_TIME, [text, 60_000])


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
    assert token_text(page) == expected_text(score)
    page.locator(f"{BENCH} button", has_text="Undo edits").click()
    page.wait_for_function(
        "(sar) => document.querySelector('.sarlab-workbench .sarlab-number b').textContent === sar",
        arg=signed(group[0].score.sar),
    )


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
    for kind, button in (("concise", 0), ("partly_right", 1)):
        pin = rows.filter(has_text=kind).first.locator(".sarlab-pins button").nth(button)
        if pin.get_attribute("aria-pressed") == "false":
            pin.click()
    tab(page, "A/B")
    views = page.locator(f"{BENCH} .sarlab-compact")
    expected = {c.label: signed(c.score.sar) for c in group}
    for view, kind in ((views.nth(0), "concise"), (views.nth(1), "partly_right")):
        view.locator(".sarlab-number b", has_text=expected[kind]).first.wait_for()
    shoot(page, pictures, "ab")


def test_alpha_moves_the_reward_designs(page, pictures) -> None:
    tab(page, "Reward designs")
    before = page.locator(f"{BENCH} .sarlab-designs table").text_content()
    slider = page.locator(f"{BENCH} .sarlab-designs .noUi-handle").first
    slider.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "(old) => document.querySelector('.sarlab-designs table').textContent !== old", arg=before
    )
    page.wait_for_timeout(600)
    alpha = float(page.locator(f"{BENCH} .sarlab-designs .widget-readout").first.text_content())
    assert alpha > 0.2
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
    tab(page, "Reward designs")
    page.locator(f"{BENCH} .sarlab-designs button", has_text="this question").click()
    drafts = read_examples(QUESTIONS)[6:12]
    second = score_candidates(policy, drafts)
    page.locator(f"{BENCH} select").first.select_option(index=1)
    page.locator(f"{BENCH} .sarlab-designs tbody td", has_text="off_topic").first.wait_for()
    page.wait_for_timeout(1500)
    alpha = float(page.locator(f"{BENCH} .sarlab-designs .widget-readout").first.text_content())
    designs = compare_designs(second, alpha)
    rows = page.evaluate(
        "[...document.querySelectorAll('.sarlab-designs tbody tr')]"
        ".map(r => [...r.cells].map(c => c.textContent.trim()))"
    )
    order = sorted(range(6), key=lambda i: -second[i].score.sar)
    assert [row[0] for row in rows] == [second[i].label for i in order]
    for row, i in zip(rows, order, strict=True):
        assert row[3:] == [signed(design.advantages[i]) for design in designs]


def test_answers_are_sampled_and_sampling_stops(page, pictures) -> None:
    tab(page, "Sample")
    rows = page.locator(f"{BENCH} .sarlab-ranking tbody tr")
    before = rows.count()
    boxes = page.locator(f"{BENCH} .widget-tabs, {BENCH} .jupyter-widget-tab").locator("input")
    visible_boxes = [box for box in boxes.all() if box.is_visible()]
    visible_boxes[0].fill("64")
    visible_boxes[1].fill("60")
    visible_boxes[1].press("Tab")
    page.locator(f"{BENCH} button", has_text="Sample").click()
    page.locator(f"{BENCH} .sarlab-ranking tr", has_text="sampled").first.wait_for()
    # Before the pictures, which take as long as all 64 answers on a fast machine.
    page.locator(f"{BENCH} .sarlab-job button", has_text="Stop").click(timeout=20_000)
    page.locator(f"{BENCH} .sarlab-job", has_text="Stopped.").wait_for()
    shoot(page, pictures, "sample")
    assert before < rows.count() < before + 64


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
    page.locator(f"{runs} button", has_text="right without a thought").click()
    page.locator(runs, has_text="right answers are at most").wait_for()
    shoot(page, pictures, "audit")


def test_the_view_is_exported(page, lab, pictures) -> None:
    _, _, root = lab
    tab(page, "Export")
    page.locator(f"{BENCH} button", has_text="HTML").click()
    page.locator(BENCH, has_text="Written: exports/answers.html").wait_for()
    document = (root / "notebooks" / "exports" / "answers.html").read_text()
    assert "<script" not in document and "rgba(0, 114, 178" in document
    page.locator(f"{BENCH} button", has_text="PNG").click()
    page.locator(BENCH, has_text="Written: exports/answers.png").wait_for(timeout=120_000)
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
        page.evaluate(
            """() => { window.longest = 0; let last = performance.now();
                const tick = (now) => { window.longest = Math.max(window.longest, now - last);
                    last = now; requestAnimationFrame(tick); }; requestAnimationFrame(tick); }"""
        )
        run_all_from_menu(page)
        page.wait_for_selector(".sarlab-fold")
        page.wait_for_timeout(500)
        assert page.locator(".sarlab-fold").count() == 334
        assert page.locator(".sarlab-token[data-index]").count() < 100
        page.locator(".sarlab-fold summary").nth(200).click()
        assert page.locator(".sarlab-fold").nth(200).locator("[data-index]").count() == 12
        longest = page.evaluate("window.longest")
        print(f"\n4,000 tokens: the page's longest pause was {longest:.0f} ms")
        assert longest < 2000


def test_speed_from_the_input_event_to_the_repainted_token(lab, tmp_path) -> None:
    port, token, root = lab
    try:
        load_policy("smollm2-135m")
    except ValueError as error:
        pytest.skip(str(error))
    path = put_notebook(root, "speed.ipynb", "smollm2-135m", 1)
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
        run_all_from_menu(page)
        page.wait_for_selector(f"{BENCH} .sarlab-tokens .sarlab-token")
        edited(page, texts[-1])
        near_end = [page.evaluate(TYPE_AND_TIME, [text, 60_000]) for text in texts]
        tokens = page.locator(f'{BENCH} .sarlab-number[data-name="tokens"] b').first.text_content()
        whole = [page.evaluate(TYPE_AND_TIME, [text, 60_000]) for text in fresh]
    edit_ms, whole_ms = statistics.median(near_end), statistics.median(whole)
    print(
        f"\n{tokens} tokens, smollm2-135m, in the browser: one word near the end {edit_ms:.0f} ms "
        f"(median of {len(near_end)}, worst {max(near_end):.0f}); a new answer {whole_ms:.0f} ms "
        f"(median of {len(whole)}, worst {max(whole):.0f})"
    )
    assert edit_ms < 500
    assert whole_ms < 1500
