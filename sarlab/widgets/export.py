"""Leave a view behind: in a notebook, as an HTML file without scripts, as a picture.

The picture is taken by the Chromium that kaleido uses for plotly's pictures as well.
"""

from __future__ import annotations

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

from sarlab.display.figures import mimebundle
from sarlab.runs.atomic import write_text
from sarlab.widgets.html import page

_TIMEOUT_S = 60.0


def write_html(path: str | Path, title: str, body: str) -> Path:
    """Write a view as one HTML file that loads nothing and runs nothing."""
    path = _new_place(path, ".html")
    write_text(path, page(title, body))
    return path


def write_png(path: str | Path, title: str, body: str, *, width: int = 1080) -> Path:
    """Write a picture of a view. Raises RuntimeError where no Chromium can be found."""
    path = _new_place(path, ".png")
    path.write_bytes(picture(title, body, width=width))
    return path


def picture(title: str, body: str, *, width: int = 1080, scale: float = 2) -> bytes:
    """PNG of a view on a page of ``width`` CSS pixels, ``scale`` dots each, as high as its content.

    Raises RuntimeError where no Chromium or Chrome can be found or it does not answer.
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
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "view.html"
        file.write_text(document, encoding="utf-8")
        async with asyncio.timeout(_TIMEOUT_S):
            async with choreographer.Browser(headless=True, enable_sandbox=False) as browser:
                tab = await browser.create_tab("about:blank")
                screen = {"width": width, "height": 600, "deviceScaleFactor": scale}
                screen["mobile"] = False
                await _send(tab, "Emulation.setDeviceMetricsOverride", screen)
                await _send(tab, "Page.enable")
                loaded = tab.subscribe_once("Page.loadEventFired")
                await _send(tab, "Page.navigate", {"url": file.as_uri()})
                await loaded
                size = (await _send(tab, "Page.getLayoutMetrics"))["cssContentSize"]
                clip = {"x": 0, "y": 0, "width": width, "height": size["height"], "scale": 1}
                shot = await _send(
                    tab,
                    "Page.captureScreenshot",
                    {"format": "png", "clip": clip, "captureBeyondViewport": True},
                )
    return base64.b64decode(shot["data"])


async def _send(tab: Any, command: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    answer = await tab.send_command(command, params or {})
    if "error" in answer:
        raise OSError(f"the browser refused {command}: {answer['error']}")
    result: dict[str, Any] = answer["result"]
    return result


def _new_place(path: str | Path, suffix: str) -> Path:
    path = Path(path)
    if path.suffix.lower() != suffix:
        raise ValueError(f"{path} should end in {suffix}. Name the file accordingly.")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def show_figure(figure: go.Figure, *, width: int = 900) -> None:
    """Display a figure: interactive in JupyterLab, with a PNG ``width`` pixels wide elsewhere."""
    bundle = mimebundle(figure, png=False)
    wide = go.Figure(figure).update_layout(width=width)
    display({**mimebundle(wide), **bundle}, raw=True)


def show_html(body: str) -> None:
    """Display static HTML."""
    display(HTML(body))


def show_picture(body: str, *, title: str = "sarlab", width: int = 900) -> None:
    """Display a picture of static HTML, for readers whose page drops styles.

    Without a browser to take the picture a line says so.
    """
    try:
        display(Image(picture(title, body, width=width, scale=1), width=width))
    except RuntimeError as error:
        print(f"No picture of this view: {error}")
