"""Static twins of the views: in a notebook, as an HTML file without scripts, as a picture."""

import asyncio
import base64
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import choreographer
import plotly.graph_objects as go
from choreographer.errors import BrowserFailedError, ChromeNotFoundError
from IPython.display import HTML, Image, display

from sarlab.display.figures import show
from sarlab.display.ledger import ledger_html, parts_html
from sarlab.display.tables import folded
from sarlab.display.text import plain
from sarlab.display.token_view import answer_view
from sarlab.runs.atomic import replace_file
from sarlab.widgets.candidates import judged, ranked
from sarlab.widgets.designs import compare_designs
from sarlab.widgets.html import (
    LOGGED,
    RANKING,
    answer_html,
    designs_html,
    page,
    pair_html,
    records_html,
)
from sarlab.widgets.run_browser import RunBrowser
from sarlab.widgets.state import Bench

_ROWS_SHOWN = 12
_TIMEOUT_S = 60.0


def workbench_html(bench: Bench, *, with_pair: bool = True) -> str:
    """The question, the ranking, the opened answer, the pair, the designs; ledgers if made."""
    gold = f" <i>Right answer: {plain(bench.gold)}</i>" if bench.gold else ""
    parts = [
        f'<div style="white-space: pre-wrap"><b>{plain(bench.question)}</b>{gold}</div>'
        f'<div style="font-size: 13px">Scored by {plain(bench.policy.reference)}</div>'
    ]
    if bench.answers:
        parts.append(records_html(RANKING, [bench.answers[i] for i in ranked(bench.answers)]))
    if bench.opened is not None:
        label = bench.answers[bench.answer].label if 0 <= bench.answer < len(bench.answers) else ""
        heading = f"{label}, edited" if bench.edited else label
        parts.append(answer_html(answer_view(bench.opened, *bench.verdict()), heading=heading))
    pair = bench.pinned_scores() if with_pair else []
    if pair:
        parts.append(pair_html([(label, answer_view(score)) for label, score in pair]))
    for name, score, ledger in bench.ledgers:
        # After an edit the ledger of the text before stays on show until the new one is there.
        if bench.looks_at(name, score):
            parts.append(ledger_html(score, ledger, bench.thresholds, name))
    if bench.given and bench.looks_at("", bench.given[0]):
        parts.append(parts_html(*bench.given))
    group = judged(bench.answers)
    if len(group) > 1:
        chosen = [group[i] for i in ranked(group)]
        left_out = len(bench.answers) - len(group)
        note = f"; {left_out} not judged and left out" if left_out else ""
        parts.append(f"<p>Group-relative advantages at α = {bench.alpha:.2f}{note}</p>")
        designs = compare_designs(chosen, bench.alpha)
        parts.append(designs_html(chosen, designs, "advantage"))
    return f"<div>{''.join(parts)}</div>"


def show_snapshot(bench: Bench, *, width: int = 900) -> None:
    """Display the workbench's present state as a picture, which pages without styles show too.

    Behind a line to click stands the static HTML; without a browser to draw the picture it is open.
    The picture goes without the pinned pair, to keep a notebook light.
    """
    bench.wait()
    twin = workbench_html(bench)
    try:
        drawn = picture("sarlab", workbench_html(bench, with_pair=False), width=width, scale=1)
    except RuntimeError as error:
        print(f"No picture of this view: {error}")
        display(HTML(twin))
    else:
        display(Image(drawn, width=width))
        display(HTML(folded("The same as text, with the numbers of each token", twin)))


def run_html(browser: RunBrowser) -> str:
    """What a run browser shows: the rows in its table, and the opened one's tokens."""
    opened = browser.opened
    if opened is None:
        return f"<p>{browser.message.value}</p>"
    about = plain(opened.question) if browser.following else browser.message.value
    parts = [
        f"<p><b>{plain(Path(browser.run).name)}</b>: {about}</p>",
        records_html(LOGGED, browser.shown[:_ROWS_SHOWN]),
    ]
    if browser.tokens.score is not None:
        heading = f"step {opened.step}, {'right' if opened.correct else 'wrong'}"
        parts.append(answer_html(answer_view(browser.tokens.score), heading=heading))
    return f"<div>{''.join(parts)}</div>"


def show_run(browser: RunBrowser) -> None:
    """Display what a run browser shows as static HTML."""
    display(HTML(run_html(browser)))


def show_figure(figure: go.Figure, *, width: int = 900) -> None:
    """Display a figure: interactive in JupyterLab, a picture ``width`` pixels wide elsewhere."""
    show(go.Figure(figure).update_layout(width=width))


def write_view(path: str | Path, suffix: str, title: str, body: str) -> Path:
    """Write a view: as HTML that loads and runs nothing (".html"), or as a picture (".png").

    Raises ValueError for another suffix, RuntimeError where no Chromium draws the picture.
    """
    path = Path(path)
    if path.suffix.lower() not in ("", suffix):
        raise ValueError(f"{path} should end in {suffix}. Name the file accordingly.")
    path.parent.mkdir(parents=True, exist_ok=True)
    content = picture(title, body) if suffix == ".png" else page(title, body).encode()
    replace_file(path.with_suffix(suffix), lambda scratch: scratch.write_bytes(content))
    return path.with_suffix(suffix)


def picture(title: str, body: str, *, width: int = 1080, scale: float = 2) -> bytes:
    """PNG of a view on a page of ``width`` CSS pixels, ``scale`` dots each, as high as its content.

    The browser is the one that kaleido uses for plotly's pictures. Raises RuntimeError where none
    can be found or it does not answer.
    """
    shot = _screenshot(page(title, body), width, scale)
    try:
        # In a thread of its own, since a notebook's thread has an event loop running already.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, shot).result(_TIMEOUT_S + 15)
    except (ChromeNotFoundError, BrowserFailedError, RuntimeError, OSError) as error:
        raise RuntimeError(
            "A picture needs Chromium or Chrome, and none could be used "
            f"({type(error).__name__}: {str(error)[:200]}). Install it (Debian: apt install "
            "chromium), or name it in the environment variable BROWSER_PATH; the HTML export "
            "works without."
        ) from error


async def _screenshot(document: str, width: int, scale: float) -> bytes:
    async def send(command: str, **params: Any) -> Any:
        answer: Any = await tab.send_command(command, params)
        if "error" in answer:
            raise OSError(f"the browser refused {command}: {answer['error']}")
        return answer["result"]

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "view.html"
        file.write_text(document, encoding="utf-8")
        async with (
            asyncio.timeout(_TIMEOUT_S),
            choreographer.Browser(headless=True, enable_sandbox=False) as browser,
        ):
            tab = await browser.create_tab("about:blank")
            screen = {"width": width, "height": 600, "deviceScaleFactor": scale, "mobile": False}
            await send("Emulation.setDeviceMetricsOverride", **screen)
            await send("Page.enable")
            loaded = tab.subscribe_once("Page.loadEventFired")
            await send("Page.navigate", url=file.as_uri())
            await loaded
            size = (await send("Page.getLayoutMetrics"))["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": width, "height": size["height"], "scale": 1}
            shot = await send("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
            return base64.b64decode(shot["data"])
