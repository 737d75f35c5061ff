"""The page of `examples/cluster` in a real browser: a client of every server at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ..test_cluster_example import HAS_PACKAGES, cluster
from .chromium import find_chromium, open_browser

if TYPE_CHECKING:
    from pathlib import Path

SAID = "[...document.querySelectorAll('li')].map(line => line.textContent)"


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.skipif(find_chromium() is None, reason="no Chromium on PATH")
@pytest.mark.skipif(not HAS_PACKAGES, reason="run `npm ci --prefix examples/cluster`")
async def test_a_message_to_one_server_is_in_the_panes_of_all(tmp_path: Path) -> None:
    async with cluster() as running, open_browser(tmp_path) as browser:
        page = await browser.new_page()
        await page.look(1280, 900)
        await page.goto(running.page.replace("localhost", "127.0.0.1"))
        await page.until("[...document.querySelectorAll('.state')].every(e => e.textContent.startsWith('connected'))")
        for name, url in running.urls.items():
            pane = f"#port-{url.rpartition(':')[2]}"
            await page.click(f"{pane} input")
            await page.type(f"hello from {name}")
            await page.press("Enter", 13, "\r")
            await page.until(f"{SAID}.filter(line => line === '{name}: hello from {name}').length === 3")
        await page.until("document.querySelector('.state').textContent.includes('Trio 2: 1')")
        assert page.complaints == []
