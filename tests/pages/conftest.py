"""A real Chromium, offline, and axe-core; these tests run where ``tests/pages`` is named, and skip without either."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

AXE = Path(__file__).parents[2] / "build" / "pages" / "node_modules" / "axe-core" / "axe.min.js"

Open = Callable[..., "Page"]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Left out unless named: a browser is heavy, and `make test` goes without one."""
    named = any("tests/pages" in argument for argument in config.invocation_params.args)
    return None if named else True


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no Chromium here: make test-pages")
    with playwright.sync_playwright() as driver:
        # As root Chromium has no sandbox of its own; what it is given are files of ours.
        made = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """Opens a page's text, offline; whatever it says on the console, or asks for, fails the test."""
    faults: list[str] = []
    contexts: list[Any] = []

    def show(text: str, width: int = 1280, height: int = 900, scheme: Any = "light") -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: faults.append(request.url) if not request.url.startswith("file:") else None)
        file = tmp_path / "page.html"
        file.write_text(text)
        page.goto(file.as_uri())
        return page

    yield show
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture(scope="session")
def axe() -> str:
    if not AXE.exists():
        pytest.skip("no axe-core here: make test-pages")
    return AXE.read_text()
