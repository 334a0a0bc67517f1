"""Notebook 02 in JupyterLab: its buttons pressed while work is going on, its chart while it runs.

Times are printed (``-s``), since they depend on the machine; limits are wide.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from browser_lab import REPOSITORY, chromium_path, jupyter_lab, open_notebook, open_page, set_theme

from sarlab.runs.folder import read_metrics

pytestmark = [pytest.mark.browser, pytest.mark.slow]
# A step long enough that a mouse can reach a button while it goes on, on a quick machine too.
SMALL: dict[str, Any] = {
    "steps": 30,
    "questions": 16,
    "group_size": 8,
    "eval_questions": 40,
    "validation_questions": 20,
    "eval_every": 30,
}
MOST_S = 240  # what a loaded machine may take where a fast one takes seconds

# What the page has said since a run was started, each text with its time in milliseconds: nothing
# is missed between two looks, however quick the machine is. Chart: points of its first panel.
RECORD = """() => {
    const note = (name, text) => {
        const told = window.told[name] ??= [];
        if (text && told.at(-1)?.[1] !== text) told.push([performance.now(), text]);
    };
    window.told = {};
    const look = () => {
        const line = document.querySelector('.sarlab-training');
        note('line', line && [...line.children].map((e) => e.textContent).join(' | '));
        note('news', document.querySelector('[role=status].sarlab-news')?.textContent);
        const [stop, test] = document.querySelectorAll('button.sarlab-stop');
        note('Stop', stop?.textContent.trim());
        note('Stop and test', test?.textContent.trim());
        const chart = document.querySelector('.jp-RenderedPlotly');
        note('chart', chart?.querySelectorAll('.subplot.xy .trace:first-child path.point').length);
    };
    new MutationObserver(look).observe(
        document.body, { subtree: true, childList: true, characterData: true, attributes: true });
    document.addEventListener('click', (event) => {
        if (event.target.closest('button.sarlab-stop')) note('click', 'click');
    }, true);
}"""

# The least contrast (WCAG 2) of a colour of the elements below a selector against their ground.
CONTRAST = """([selector, property]) => {
    const parse = (text) => (text.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
    const over = ([r, g, b, a = 1], below) => [r, g, b].map((c, i) => c * a + below[i] * (1 - a));
    const paper = (e) => !e ? [255, 255, 255]
        : over(parse(getComputedStyle(e).backgroundColor), paper(e.parentElement));
    const light = (rgb) => rgb.map((c) => c / 255)
        .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const ratio = (x, y) => {
        const [a, b] = [light(x), light(y)].sort((p, q) => q - p);
        return (a + 0.05) / (b + 0.05);
    };
    const ground = (e) => paper(property === 'backgroundColor' ? e.parentElement : e);
    return Math.min(...[...document.querySelectorAll(selector)].map((e) =>
        ratio(over(parse(getComputedStyle(e)[property]), ground(e)), ground(e))));
}"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[tuple[Any, Path]]:
    """Notebook 02 as it ships, open in a page, in a project folder that holds nothing else."""
    chromium_path()  # skip before anything is started
    root = tmp_path_factory.mktemp("project")
    (root / "notebooks").mkdir()
    notebook = nbformat.read(REPOSITORY / "notebooks" / "02_train_sa_grpo.ipynb", 4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, root / "notebooks" / "02.ipynb")
    scratch = tmp_path_factory.mktemp("scratch")
    with jupyter_lab(root, scratch) as (port, token), open_page(scratch) as page:
        open_notebook(page, port, token, "notebooks/02.ipynb")
        page.evaluate(RECORD)
        yield page, root


def start(page: Any, name: str, **parameters: Any) -> None:
    """Edit the parameters cell and run all cells; returns while they run."""
    values = {**SMALL, **parameters, "name": name}
    text = "\n".join(f"{k} = {v!r}" for k, v in values.items())
    page.evaluate(
        """async (text) => {
            const { content } = window.jupyterapp.shell.currentWidget;
            const cells = [...content.model.cells].map((cell) => cell.sharedModel);
            const cell = cells.find((c) => c.getMetadata('tags')?.includes('parameters'));
            window.shipped ??= cell.source;
            const named = text.split('\\n').map((line) => line.split(' = ')[0]);
            const kept = window.shipped.split('\\n').filter(
                (line) => !named.includes(line.split(' = ')[0]));
            cell.setSource([...kept, text].join('\\n'));
            for (const c of cells) if (c.cell_type === 'code') c.setOutputs([]);
            window.allDone = false;
            window.told = {};
            window.jupyterapp.commands.execute('notebook:run-all-cells')
                .finally(() => { window.allDone = true; });
        }""",
        text,
    )


def told(page: Any, name: str) -> list[str]:
    """All that one part of the page has said in this run."""
    return [text for _, text in page.evaluate("(name) => window.told[name] ?? []", name)]


def first_ms(page: Any, name: str, pattern: str) -> float:
    """When a part of the page first said something that matches; waits for it."""
    first = """([name, pattern]) =>
        (window.told[name] ?? []).find(([, text]) => RegExp(pattern).test(text))?.[0]"""
    page.wait_for_function(first, arg=[name, pattern], timeout=MOST_S * 1000)
    return float(page.evaluate(first, [name, pattern]))


def press(page: Any, text: str, when: str) -> None:
    """Press a button with the mouse as soon as the progress line matches."""
    first_ms(page, "line", when)
    page.locator("button.sarlab-stop", has_text=re.compile(f"^{text}$")).click()


def seconds_to(page: Any, name: str, pattern: str) -> float:
    """Seconds from the click to a text."""
    return (first_ms(page, name, pattern) - first_ms(page, "click", "click")) / 1000


def await_end(page: Any) -> None:
    page.wait_for_function("() => window.allDone", timeout=MOST_S * 1000)
    failed = page.evaluate(
        """() => [...window.jupyterapp.shell.currentWidget.content.model.cells]
            .flatMap((cell) => cell.type === 'code' ? cell.sharedModel.outputs : [])
            .filter((o) => o.output_type === 'error').map((o) => o.evalue)"""
    )
    assert not failed


def facts(root: Path, name: str) -> dict[str, Any]:
    return json.loads((root / "runs" / name / "run.json").read_text())


def steps_promised(words: str) -> int:
    """How many steps a pressed button's words say will be there at the end."""
    after = re.search(r"after step (\d+)", words)
    dropped = re.search(r"step (\d+) is dropped", words)
    assert after or dropped, words
    return int(after[1]) if after else int(dropped[1]) - 1


def test_five_steps_five_points_and_what_is_left_behind(lab) -> None:
    page, root = lab
    start(page, "five", steps=5, questions=8, eval_every=5, eval_questions=12)
    shown = [first_ms(page, "chart", f"^[{k}-5]$") for k in (1, 2, 3, 4)]
    ticks = page.locator(".jp-RenderedPlotly .xtick text").all_text_contents()
    assert set(ticks) == {"0", "1", "2", "3", "4", "5"}
    texts = page.locator(".jp-RenderedPlotly .ytick text").all_text_contents()
    assert texts and not any(re.search("[µμmkMGn]", text) for text in texts)
    await_end(page)
    shown.append(first_ms(page, "chart", "^5$"))  # in the chart that a run leaves
    for dark in (True, False):
        set_theme(page, dark)
        texts = page.locator(".jp-RenderedPlotly svg tspan").count()
        text = page.evaluate(CONTRAST, [".jp-RenderedPlotly svg tspan", "fill"])
        line = page.evaluate(CONTRAST, [".jp-RenderedPlotly path.js-line", "stroke"])
        print(f"\n{'dark' if dark else 'light'} chart: {texts} texts {text:.2f}, lines {line:.2f}")
        assert texts > 40 and text >= 4.5 and line >= 3
        assert page.locator(".jp-RenderedPlotly svg text:not(:empty, :has(tspan))").count() == 0
    said = [first_ms(page, "line", f"^[{k}-5] of 5 steps") for k in (1, 2, 3, 4, 5)]
    lags = [(drawn - line) / 1000 for drawn, line in zip(shown, said, strict=True)]
    print(f"\nchart behind the progress line, seconds per step: {[round(lag, 1) for lag in lags]}")
    assert max(lags) < 20
    line = told(page, "line")[-1]
    assert line.startswith("5 of 5 steps · finished") and "test questions: " in line
    assert any("validation after step 0: " in text for text in told(page, "line"))
    assert page.locator("button.sarlab-stop").count() == 0
    assert len(read_metrics(root / "runs" / "five")) == 5
    assert not page.errors


STOPS = {  # when, as the progress line says it
    "step-1-sampling": r"^0 of 30 steps.* step 1: [1-9]\d* of",
    "step-1-update": r"^0 of 30 steps.* step 1: answers written",
    "middle-sampling": r"^3 of 30 steps.* step 4: [1-9]\d* of",
    "middle-update": r"^3 of 30 steps.* step 4: answers written",
}


@pytest.mark.parametrize("place", STOPS)
def test_stop_ends_a_step_and_keeps_its_word(lab, place: str) -> None:
    page, root = lab
    start(page, place)
    press(page, "Stop", STOPS[place])
    said, ended = seconds_to(page, "Stop", "^Stopping: "), seconds_to(page, "line", "stopped")
    await_end(page)
    words, line = told(page, "Stop")[-1], told(page, "line")[-1]
    print(f"\n{place}: {words!r} after {said:.2f} s, ended after {ended:.2f} s")
    assert "No test follows; the run can be resumed." in told(page, "news")
    run = facts(root, place)
    assert run["status"] == "stopped"
    assert run["steps_done"] == steps_promised(words) == len(read_metrics(root / "runs" / place))
    assert line.startswith(f"{run['steps_done']} of 30 steps · stopped, ")
    assert words.removeprefix("Stopping: ") in line  # what remains once the button is gone
    assert not (root / "runs" / place / "summary.json").exists()
    assert page.locator(".jp-OutputArea-output", has_text="before its test. To go").count() == 1


def test_stop_ends_the_base_policys_test(lab) -> None:
    page, root = lab
    start(page, "base", eval_questions=300)
    press(page, "Stop", r"base policy: [1-9]\d* of 300")
    print(f"\nbase test: ended after {seconds_to(page, 'line', 'stopped'):.2f} s")
    await_end(page)
    assert facts(root, "base")["status"] == "stopped" and facts(root, "base")["steps_done"] == 0
    assert "test, base policy is dropped" in told(page, "line")[-1]


def test_stop_ends_the_last_test_which_a_resumed_run_makes_up_for(lab) -> None:
    page, root = lab
    few = {"steps": 2, "eval_every": 2, "questions": 4, "eval_questions": 300}
    start(page, "last", **few)
    press(page, "Stop", r"^2 of 2 steps.* test: [1-9]\d* of 300")
    print(f"\nlast test: ended after {seconds_to(page, 'line', 'stopped'):.2f} s")
    await_end(page)
    assert facts(root, "last")["status"] == "stopped" and facts(root, "last")["steps_done"] == 2
    assert not (root / "runs" / "last" / "summary.json").exists()
    start(page, "last", **few, resume=True)
    first_ms(page, "line", "finished")
    await_end(page)
    assert facts(root, "last")["status"] == "finished"
    assert (root / "runs" / "last" / "summary.json").exists()


def test_stop_and_test_judges_what_there_is(lab) -> None:
    page, root = lab
    start(page, "judged", eval_questions=12)
    press(page, "Stop and test", r"^1 of 30 steps.* step 2: [1-9]\d* of")
    said = seconds_to(page, "Stop and test", "^Stopping after step")
    ended = seconds_to(page, "line", "stopped, then tested")
    await_end(page)
    words, line = told(page, "Stop and test")[-1], told(page, "line")[-1]
    print(f"\nStop and test: {words!r} after {said:.2f} s, ended after {ended:.2f} s")
    run = facts(root, "judged")
    assert run["status"] == "stopped" and run["steps_done"] == steps_promised(words)
    summary = json.loads((root / "runs" / "judged" / "summary.json").read_text())
    assert summary["steps"] == run["steps_done"] and summary["trained"]["questions"] == 12
    assert f"test questions: {summary['base']['accuracy']:.0%} right" in line
    assert f"{summary['trained']['accuracy']:.0%} right" in line
    assert page.locator(".jp-OutputArea-output", has_text="12 test questions").count() == 1
    heads = page.locator(".jp-OutputArea-output th").all_text_contents()
    assert {"before training", f"after step {run['steps_done']}"} <= set(heads)


def test_an_interrupt_of_the_kernel_is_a_stop(lab) -> None:
    page, root = lab
    start(page, "interrupted")
    first_ms(page, "line", r"^1 of 30 steps.* step 2: [1-9]\d* of")
    asked = page.evaluate(
        """() => {
            window.jupyterapp.commands.execute('notebook:interrupt-kernel');
            return performance.now();
        }"""
    )
    ended = (first_ms(page, "line", "stopped") - asked) / 1000
    print(f"\ninterrupt: ended after {ended:.2f} s")
    await_end(page)
    run = facts(root, "interrupted")
    assert run["status"] == "stopped"
    assert run["steps_done"] == len(read_metrics(root / "runs" / "interrupted"))


def test_every_control_has_a_name_and_can_be_read_in_both_themes(lab) -> None:
    page, _ = lab
    start(page, "named")
    first_ms(page, "line", r"^0 of 30 steps.* step 1: [1-9]\d* of")
    for name in ("Stop", "Stop and test"):
        assert page.get_by_role("button", name=name, exact=True).count() == 1
    assert page.get_by_role("progressbar", name="training steps").count() == 1
    assert page.get_by_role("status").filter(has_text="validation questions").count() == 1
    for dark in (True, False):
        set_theme(page, dark)
        texts = ".sarlab-training div:not(:has(div), :empty), .sarlab-news, button.sarlab-stop"
        text = page.evaluate(CONTRAST, [texts, "color"])
        bar = page.evaluate(CONTRAST, [".sarlab-training [role] > div", "backgroundColor"])
        print(f"\n{'dark' if dark else 'light'}: text {text:.2f}, bar {bar:.2f}")
        assert text >= 4.5 and bar >= 3
    press(page, "Stop", "steps")
    first_ms(page, "line", "stopped")
    await_end(page)


def test_make_lab_opens_on_a_notebook_without_popup_or_launcher(tmp_path: Path) -> None:
    chromium_path()
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    installed = Path(sys.prefix) / ".installed"  # -o: as if it were there and new
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    places = ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")
    server = subprocess.Popen(
        [
            *("make", "-C", str(REPOSITORY), "-o", str(installed), "lab", f"VENV={sys.prefix}"),
            f"ARGS=--no-browser --port={port} --IdentityProvider.token={token}",
        ],
        env={**os.environ, **{name: str(tmp_path / name) for name in places}},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        await_server(server, f"http://127.0.0.1:{port}/api/status?token={token}")
        with open_page(tmp_path, height=900) as page:
            page.goto(f"http://127.0.0.1:{port}/?token={token}", timeout=MOST_S * 1000)
            page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=MOST_S * 1000)
            page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]")
            page.wait_for_timeout(5000)  # JupyterLab's question came within the first seconds
            tabs = page.locator("#jp-main-dock-panel .lm-TabBar-tabLabel").all_text_contents()
            assert tabs == ["01_reward_inspection.ipynb"]
            assert page.locator(".Toastify__toast").count() == 0
            assert page.locator(".jp-Dialog").count() == 0
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def await_server(server: subprocess.Popen[bytes], url: str) -> None:
    until = time.monotonic() + MOST_S
    while time.monotonic() < until:
        assert server.poll() is None, "the server ended at once"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"no answer from {url.split('?', maxsplit=1)[0]}")
