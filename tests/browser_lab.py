"""JupyterLab on a free loopback port, and a headless Chromium looking at it."""

from __future__ import annotations

import atexit
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_START_S = 180


def chromium_path() -> str:
    """The browser, or a skip that says what is missing."""
    pytest.importorskip("playwright", reason="playwright is not installed: make install-dev")
    names = (os.environ.get("BROWSER_PATH"), "chromium", "chromium-browser", "google-chrome")
    for name in names:
        found = name and shutil.which(name)
        if found:
            return found
    pytest.skip("no Chromium found: run scripts/setup_chromium.sh, or set BROWSER_PATH")


@contextmanager
def jupyter_lab(root: Path, scratch: Path) -> Iterator[tuple[int, str]]:
    """A server with ``root`` as its folder; its port and token. Ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    settings = scratch / "settings"
    quiet = settings / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True)
    quiet.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    options = [
        *("--no-browser", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"),
        *(f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={root}"),
        *("--expose-app-in-browser", "--LabApp.news_url=None"),
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        *(f"--LabApp.user_settings_dir={settings}", f"--LabApp.workspaces_dir={scratch / 'w'}"),
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.append("--allow-root")
    environment = {
        **os.environ,
        "JUPYTER_PREFER_ENV_PATH": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
    }
    log = (scratch / "server.log").open("wb")
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *options], env=environment, stdout=log, stderr=log
    )
    try:
        _await(server, f"http://127.0.0.1:{port}/api/status?token={token}", scratch / "server.log")
        yield port, token
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
        log.close()


def _await(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        if server.poll() is not None:
            raise RuntimeError(f"JupyterLab ended at once:\n{log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise RuntimeError(f"JupyterLab did not answer in {_START_S} s:\n{log.read_text()[-2000:]}")


@contextmanager
def open_page(scratch: Path, *, height: int = 1500) -> Iterator[Any]:
    """A page in a fresh browser profile; script errors of the page are in ``page.errors``."""
    context = driver().chromium.launch_persistent_context(
        str(scratch / "profile"),
        executable_path=chromium_path(),
        args=list(_FLAGS),
        viewport={"width": 1280, "height": height},
    )
    page = context.pages[0] if context.pages else context.new_page()
    page.set_default_timeout(240_000)  # a loaded machine is slow, not wrong
    page.errors = []
    # anywidget gives a model 2 s and then rejects a promise. A busy machine takes longer, and the
    # widget works all the same: the tests see what it shows.
    slow = "[anywidget] Failed to initialize model."
    page.on("pageerror", lambda e: page.errors.append(str(e)) if slow not in str(e) else None)
    page.on("dialog", lambda dialog: (page.errors.append("a dialog opened"), dialog.dismiss()))
    try:
        yield page
    finally:
        context.close()


@cache
def driver() -> Any:
    """Playwright, started once: a second one beside it is refused."""
    from playwright.sync_api import sync_playwright

    playwright = sync_playwright().start()
    atexit.register(playwright.stop)
    return playwright


def open_notebook(page: Any, port: int, token: str, path: str) -> None:
    """Open a notebook alone on the page and wait for its kernel."""
    workspace = secrets.token_hex(4)
    url = f"http://127.0.0.1:{port}/lab/workspaces/{workspace}/tree/{path}?token={token}"
    page.goto(url, timeout=180_000)
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=180_000)
    page.wait_for_function("() => window.jupyterapp?.shell.currentWidget?.sessionContext")
    page.evaluate(
        """async () => {
            await window.jupyterapp.restored;
            await window.jupyterapp.shell.currentWidget.sessionContext.ready;
            await window.jupyterapp.commands.execute('application:toggle-left-area');
        }"""
    )


def run_all_from_menu(page: Any, timeout_s: float = 1500) -> None:
    """Run → Run All Cells, with the mouse; waits for the last cell."""
    page.locator(".lm-MenuBar-item", has_text="Run").first.click()
    page.locator('.lm-Menu-item[data-command="runmenu:run-all"]').click()
    page.wait_for_function(
        """() => {
            const cells = [...window.jupyterapp.shell.currentWidget.content.model.cells];
            const code = cells.filter((cell) => cell.type === 'code');
            const failed = code.some((cell) =>
                cell.sharedModel.outputs.some((output) => output.output_type === 'error'));
            const last = code[code.length - 1].sharedModel;
            const idle = last.execution_count !== null && last.executionState !== 'running';
            return failed || idle;
        }""",
        timeout=timeout_s * 1000,
    )
    found = page.evaluate(
        """() => [...window.jupyterapp.shell.currentWidget.content.model.cells].flatMap(
            (cell) => cell.type === 'code'
                ? cell.sharedModel.outputs.filter((o) => o.output_type === 'error')
                    .map((o) => o.evalue) : [])"""
    )
    assert not found, f"a cell failed: {found}"


@contextmanager
def lab_page(root: Path, path: str, scratch: Path) -> Iterator[Any]:
    """A page on which a notebook below ``root`` is open and has run, with a server of its own."""
    chromium_path()  # skip before anything is started
    with jupyter_lab(root, scratch / "server") as (port, token), open_page(scratch) as page:
        open_notebook(page, port, token, path)
        run_all_from_menu(page)
        yield page


def set_theme(page: Any, dark: bool) -> None:
    """Switch JupyterLab's theme and wait until it is painted."""
    page.evaluate(
        "(theme) => window.jupyterapp.commands.execute('apputils:change-theme', {theme})",
        "JupyterLab Dark" if dark else "JupyterLab Light",
    )
    # The body itself has no box of its own, so it never counts as visible.
    body = f'body[data-jp-theme-light="{str(not dark).lower()}"]'
    page.wait_for_selector(body, state="attached")
    page.wait_for_timeout(800)


# From the input event to the frame after the tokens were drawn anew, in milliseconds.
TYPE_AND_TIME = """async ([text, timeout]) => {
    const root = document.querySelector('.sarlab-workbench .sarlab-tokens');
    const box = root.querySelector('textarea');
    const before = root.dataset.seq;
    box.value = text;
    const began = performance.now();
    box.dispatchEvent(new Event('input', { bubbles: true }));
    while (root.dataset.seq === before) {
        if (performance.now() - began > timeout) throw new Error('no answer to the edit');
        await new Promise(requestAnimationFrame);
    }
    await new Promise(requestAnimationFrame);
    return performance.now() - began;
}"""
