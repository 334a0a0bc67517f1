"""The token view by itself in a browser: colours by choice and the search, without JupyterLab.

With ``SARLAB_PICTURES=folder`` the pictures that the tests look at are kept there.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browser_lab import REPOSITORY, open_page
from test_browser import CONTRAST
from test_widgets_text import fake_score

from sarlab.widgets.live import TokenPanel

pytestmark = [pytest.mark.browser, pytest.mark.slow]
STATIC = REPOSITORY / "sarlab/widgets/static"
PIECES = ["The", " cat", " sat", ".\n", "A", " c", "at", "!\n", "Answer", ": 4"]
# The kernel's side is the real TokenPanel; ``kernel`` hands it the reader's choice.
RENDER = """async ([script, state]) => {
    const url = URL.createObjectURL(new Blob([script], { type: 'text/javascript' }));
    const { default: { render } } = await import(url);
    const handlers = {};
    const model = {
        get: (name) => state[name],
        set: (name, value) => { state[name] = value; },
        on: (name, handler) => { handlers[name] = handler; },
        off: () => {},
        save_changes: async () => {
            Object.assign(state, await window.kernel(state.colour));
            for (const name of ['legend', 'colours', 'view']) handlers['change:' + name]();
        },
    };
    render({ model, el: document.querySelector('main') });
}"""
GROUND = {"light": ("#ffffff", "rgba(0,0,0,0.87)"), "dark": ("#111111", "rgba(255,255,255,0.87)")}


def opened(page: Any, panel: TokenPanel, scheme: str, width: int = 1440) -> None:
    ground, ink = GROUND[scheme]
    page.set_viewport_size({"width": width, "height": 700})
    page.set_content(
        f"<style>{(STATIC / 'tokens.css').read_text('utf-8')}:root {{ color-scheme: {scheme};"
        f"--jp-layout-color0: {ground}; --jp-layout-color1: {ground};"
        f"--jp-content-font-color1: {ink} }} body {{ background: {ground} }}</style><main></main>"
    )

    def kernel(colour: str) -> dict[str, Any]:
        panel.colour = colour
        return panel.get_state(["legend", "colours", "view"])

    page.expose_function("kernel", kernel)
    page.evaluate(RENDER, [(STATIC / "tokens.js").read_text("utf-8"), panel.get_state()])


def kept(page: Any, name: str) -> None:
    if folder := os.environ.get("SARLAB_PICTURES"):
        page.screenshot(path=Path(folder) / f"{name}.png")


@pytest.mark.parametrize("width", [1440, 1000])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_colour_is_chosen_by_keyboard_and_stays_legible(tmp_path, scheme, width) -> None:
    score = fake_score(PIECES, [3.0, -1.5, 0.0, 0.9, -0.2, 1.0, -4.0, 9.0, 0.1, 0.2])
    panel = TokenPanel()
    panel.show(replace(score, entropy=tuple(0.5 * j for j in range(10))))
    with open_page(tmp_path) as page:
        opened(page, panel, scheme, width)
        box = page.get_by_label("Colour by")
        assert box.input_value() == "Δ log p"
        reasons = box.locator("option").evaluate_all("(all) => all.map((o) => o.title)")
        disabled = box.locator("option").evaluate_all("(all) => all.map((o) => o.disabled)")
        assert disabled == [False, False, True, True] and [bool(r) for r in reasons] == disabled
        before = page.locator("[data-index]").evaluate_all("(a) => a.map((e) => e.style.cssText)")
        box.focus()
        page.keyboard.press("ArrowDown")
        page.locator(".sarlab-number[data-name='mean entropy'] b", has_text="+2.250").wait_for()
        tints = page.locator("[data-index]").evaluate_all("(a) => a.map((e) => e.style.cssText)")
        assert tints != before and "0.5)" in tints[-1] and box.input_value() == "entropy"
        assert page.locator(".sarlab-sum").first.text_content() == "+3.00"  # of four tokens
        page.locator("[data-index='3']").hover()
        assert "entropy = +1.500" in page.locator(".sarlab-card").text_content()
        kept(page, f"tokens-entropy-{scheme}-{width}")
        found = page.evaluate(CONTRAST, "main")
        assert min(v for k, v in found.items() if k not in ("mark", "line")) >= 4.5, found
        assert min(found.values()) >= 3
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert not page.errors


def test_a_search_outlines_counts_and_walks_through_its_matches(tmp_path) -> None:
    panel = TokenPanel()
    panel.show(fake_score(PIECES))
    with open_page(tmp_path) as page:
        opened(page, panel, "light")
        hits = page.locator(".sarlab-match")
        page.get_by_label("Find").fill("CAT")
        said = page.locator(".sarlab-tools [role=status]")
        assert said.text_content() == "2 matches"  # the second one spans two tokens
        assert hits.all_text_contents() == ["␣cat", "␣c", "at"]
        here = page.locator(".sarlab-match-now")
        for key, text, words in (
            ("Enter", ["␣cat"], "match 1 of 2"),
            ("Enter", ["␣c", "at"], "match 2 of 2"),
            ("Enter", ["␣cat"], "match 1 of 2"),
            ("Shift+Enter", ["␣c", "at"], "match 2 of 2"),
        ):
            page.keyboard.press(key)
            assert here.all_text_contents() == text and said.text_content() == words
        assert "token 6 of 10" in page.locator(".sarlab-card").text_content()
        kept(page, "tokens-search")
        page.get_by_label("Find").fill("a c")  # a space is found, not only its mark
        assert hits.all_text_contents() == ["A", "␣c"]
        page.get_by_label("Find").fill("dog")
        assert said.text_content() == "no matches" and hits.count() == 0
        page.keyboard.press("Escape")
        assert said.text_content() == "" and page.get_by_label("Find").input_value() == ""


def test_a_search_opens_the_folded_step_that_holds_the_match(tmp_path) -> None:
    pieces = [f" w{i}" + (".\n" if i % 12 == 11 else "") for i in range(1200)]
    panel = TokenPanel()
    panel.show(fake_score(pieces))
    with open_page(tmp_path) as page:
        opened(page, panel, "light")
        assert page.locator("[data-index]").count() == 36
        page.get_by_label("Find").fill("w1101")
        page.keyboard.press("Enter")
        here = page.locator(".sarlab-match-now")
        assert here.all_text_contents() == ["␣w1101"]
        box, area = here.bounding_box(), page.locator(".sarlab-steps").bounding_box()
        assert area["y"] <= box["y"] <= area["y"] + area["height"]
        assert page.evaluate("document.activeElement.type") == "search"  # Enter goes on
