"""Debian's Chromium without a window, driven by Playwright; without either tests are skipped."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from scripts import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Page

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
MISSING = [name for name in ("gradio", "playwright") if importlib.util.find_spec(name) is None]
if not BROWSER:
    MISSING.append("chromium")
if MISSING:
    REASON = f"needs {', '.join(MISSING)}: the extra demo and a Chromium of the system"
    if os.environ.get("PAGE") == "required":  # as make test-page does
        pytest.fail(REASON, pytrace=False)
    pytest.skip(REASON, allow_module_level=True)

PICTURES = ROOT / "runs" / "page"  # screenshots, for people to look at


@contextmanager
def opened(page: Page, address: str) -> Iterator[None]:
    """The page at an address. It asks no other host for anything, and reports no error."""
    from playwright.sync_api import expect

    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.set_default_timeout(30_000)
    expect.set_options(timeout=30_000)
    page.goto(address)
    expect(page.locator("#status")).to_contain_text("Drop an image")
    yield
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert errors == []


def upload(page: Page, path: Path) -> None:
    page.locator("#image input[type=file]").set_input_files(path)
