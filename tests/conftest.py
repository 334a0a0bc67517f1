"""The embedded policy for the tests; small random ones are made by policies.py."""

from __future__ import annotations

import os

import pytest

from sarlab.models import Policy, load_policy

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture
def tiny() -> Policy:
    """The embedded policy, fresh for each test that may change it."""
    return load_policy("tiny", dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def frozen_tiny() -> Policy:
    """The embedded policy for tests that only look at it."""
    return load_policy("tiny", dtype="float32", device="cpu")


def pytest_unconfigure(config: pytest.Config) -> None:
    """The last line: how many tests were skipped, and how to get them."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if skipped:
        browser = sum("Chromium" in str(report.longrepr) for report in skipped)
        reporter.write_line(
            f"{len(skipped)} tests were skipped, {browser} of them for want of a browser "
            "(scripts/setup_chromium.sh, as root or with sudo, installs one). The reasons above "
            "say what the others need."
        )
