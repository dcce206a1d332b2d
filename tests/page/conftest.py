"""The browser that all tests of the page share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

sys.path.insert(0, str(Path(__file__).parent))  # for `page_browser`, which needs the extra demo


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from page_browser import BROWSER
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's has no use for root
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=BROWSER, args=flags)
        yield launched
        launched.close()
