"""The report in a browser: everything is pressed once in a headless Chromium, at a phone's width; nothing may complain."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import reidassoc as ra

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PHONE = 390  # pixels
HOSTILE = "</script><script>complaints.push('ran')</script>&\"'"

WATCH = """
window.complaints = [];
for (const name of ["error", "unhandledrejection", "securitypolicyviolation"])
  addEventListener(name, event => complaints.push(String(event.message || event.reason || event.violatedDirective)));
for (const name of ["error", "warn"]) console[name] = (...words) => complaints.push(words.join(" "));
"""

# What a reader does, and what the page shows then.
PRESS = """
const all = (where, root = document) => [...root.querySelectorAll(where)];
const texts = (where, root) => all(where, root).map(node => node.textContent);
const choose = (root, label, value) => {
  const box = all("label", root).find(node => node.firstChild.textContent === label).querySelector("select");
  box.value = value;
  box.dispatchEvent(new Event("change"));
};
const frames = row => all(".tile", row).map(node => node.classList.contains("hit"));
async function read() {
  while (document.documentElement.dataset.ready !== "yes") await new Promise(done => setTimeout(done, 20));
  const seen = {};
  const table = all("[data-protocol]").find(node => !node.hidden).querySelector("table");
  const heads = all("thead button", table);
  const column = heads.findIndex(node => node.textContent === "mAP");
  const values = () => all("tbody tr", table).map(row => Number(row.cells[column].dataset.value));
  heads[column].click(); seen.falling = values(); seen.sort = heads[column].parentNode.getAttribute("aria-sort");
  heads[column].click(); seen.rising = values();
  choose(document, "protocol ", "indoor-search multi-shot");
  seen.protocols = all("[data-protocol]").filter(node => !node.hidden).map(node => node.dataset.protocol);
  const keys = all("button.key");
  keys[1].click(); seen.lit = all("#epochs-0 .line.lit").every(line => line.dataset.method === "1");
  seen.focused = all(".charts.focused").length; keys[1].click(); seen.unfocused = all(".charts.focused").length;
  const chart = all("figure.chart svg")[0], area = chart.getBoundingClientRect();
  chart.dispatchEvent(new PointerEvent("pointermove", {clientX: area.right - 5, clientY: area.top + 9}));
  seen.readout = texts(".readout")[0];
  all(".dot")[0].dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
  seen.person = new Set(all(".dot.lit").map(dot => dot.dataset.group)).size;

  const pairs = document.querySelector(".associations");
  seen.clusters = all(".card", pairs).length;
  choose(pairs, "show", "1"); seen.right = texts(".verdict", pairs); seen.shares = texts(".share", pairs);
  choose(pairs, "show", "2"); seen.wrong = texts(".verdict", pairs);
  choose(pairs, "show", "all");
  all(".epochs g", pairs)[0].dispatchEvent(new MouseEvent("click")); seen.epoch = texts(".counts b", pairs)[0];
  choose(pairs, "direction", "1"); seen.sides = texts(".card p", pairs)[0];
  all(".people g", pairs)[0].dispatchEvent(new MouseEvent("click")); seen.chip = texts(".step", pairs);
  choose(pairs, "method", "1"); seen.other = all(".card", pairs).length;

  const found = document.querySelector(".retrieval");
  const text = () => texts(".lead", found)[0];
  const names = texts(".name", found.querySelector(".query"));
  seen.methods = names; seen.listed = all(".query", found).length; seen.everything = text();
  choose(found, "show", "a"); seen.wins = texts(".head p", found); seen.won = text();
  choose(found, "show", "neither"); seen.missed = all(".query .found", found).map(row => frames(row)[0]);
  choose(found, "show", "both"); seen.met = all(".query .found", found).map(row => frames(row)[0]);
  choose(found, "show", "all"); choose(found, "camera", "3");
  seen.cameras = texts(".head p", found).map(line => line.includes("camera 3"));
  choose(found, "camera", "all"); choose(found, "trial", "1"); choose(found, "protocol", "all-search multi-shot");
  seen.second = all(".query", found).length;
  all(".differences g", found)[0].dispatchEvent(new MouseEvent("click")); seen.one = all(".query", found).length;
  all(".more", found)[0].click(); all(".more", found)[0].click(); seen.more = all(".query", found).length;
  choose(found, "B", "0"); seen.same = text();
  DATA.chapters[0].retrieval["indoor-search multi-shot"].methods[0] = null;  // as where its queries are others
  choose(found, "show", "a"); choose(found, "protocol", "indoor-search multi-shot"); seen.alone = text();
  seen.left = texts(".name", found.querySelector(".query"));

  const wide = node => node.getBoundingClientRect().right > innerWidth + 1 && !node.closest(".scroll, .found, nav");
  seen.outside = all("main *").filter(wide).map(node => node.outerHTML.slice(0, 120));
  seen.width = innerWidth;
  seen.pictures = all(".tile").filter(node => getComputedStyle(node).backgroundImage === "none").length;
  return seen;
}
read().catch(problem => { complaints.push(String(problem)); return {}; })
  .then(seen => parent.postMessage(JSON.stringify({seen, complaints}), "*"));
"""


@pytest.fixture(scope="module")
def told(finished: Path, rival: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the page in a frame of a phone's width tells the page around it."""
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")
    folder = tmp_path_factory.mktemp("page")
    text = ra.write_report([f"{HOSTILE}={finished}", rival], folder / "report.html").read_text(encoding="utf-8")
    text = text.replace("<style>", f"<script>{WATCH}</script><style>", 1).replace(
        "</body>", f"<script>{PRESS}</script></body>"
    )
    frame = f'<iframe style="width:{PHONE}px;height:800px;border:0" srcdoc="{html.escape(text)}"></iframe>'
    listen = "addEventListener('message', event => document.getElementById('told').textContent = event.data)"
    (folder / "around.html").write_text(f'<pre id="told"></pre><script>{listen}</script>{frame}', encoding="utf-8")
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += ["--virtual-time-budget=20000", "--dump-dom", (folder / "around.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    held = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.S)
    assert held is not None, done.stderr
    return json.loads(html.unescape(held[1]))  # type: ignore[no-any-return]


def test_nothing_complains(told: dict[str, Any]) -> None:
    assert told["complaints"] == []


def test_it_fits_a_phone_and_shows_its_pictures(told: dict[str, Any]) -> None:
    assert told["seen"]["width"] == PHONE
    assert told["seen"]["outside"] == []
    assert told["seen"]["pictures"] == 0


def test_tables_sort_and_change_protocol(told: dict[str, Any]) -> None:
    seen = told["seen"]
    assert seen["falling"] == sorted(seen["falling"], reverse=True)
    assert seen["rising"] == seen["falling"][::-1] != seen["falling"]
    assert seen["sort"] == "descending"
    assert seen["protocols"] == ["indoor-search multi-shot"]


def test_charts_are_read_and_methods_set_off(told: dict[str, Any]) -> None:
    seen = told["seen"]
    assert (seen["lit"], seen["focused"], seen["unfocused"], seen["person"]) == (True, 2, 0, 1)
    assert re.match(r"epoch 4: .*pgm \d+\.\d", seen["readout"])
    assert HOSTILE in seen["readout"]


def test_associations_are_filtered_by_verdict_epoch_and_person(told: dict[str, Any]) -> None:
    seen = told["seen"]
    assert seen["clusters"] > 0
    assert seen["right"]
    assert set(seen["right"]) == {"✓ right"}
    assert set(seen["wrong"]) <= {"✕ wrong"}
    assert len(seen["shares"]) == len(seen["right"])
    assert all(re.fullmatch(r"\d+ % of visible \d+ are labelled infrared \d+", text) for text in seen["shares"])
    assert seen["epoch"] == "2"
    assert re.fullmatch(r"infrared \d+: \d+ images, commonest person \d+: \d+ of \d+", seen["sides"])
    person = re.fullmatch(r"(person \d+) ✕", seen["chip"][0])
    assert person is not None
    assert seen["other"] > 0


def test_queries_are_filtered_and_compared(told: dict[str, Any]) -> None:
    seen = told["seen"]
    assert seen["methods"] == [HOSTILE, "pgm"]
    assert seen["listed"] == 5
    total, higher = re.search(r"(\d+) queries: higher for (\d+),", seen["everything"]).groups()  # type: ignore[union-attr]
    assert f"{higher} queries: higher for {higher}, lower for 0" in seen["won"]
    assert 0 < int(higher) < int(total) == 48
    assert "Trial 1 alone; the table has the mean over all trials and seeds." in seen["everything"]
    assert seen["wins"]
    assert all("+" in text for text in seen["wins"])
    assert not any(seen["missed"])
    assert seen["met"]
    assert all(seen["met"])
    assert seen["cameras"]
    assert all(seen["cameras"])
    assert (seen["second"], seen["one"], seen["more"]) == (5, 1, 15)
    assert "higher for 0, lower for 0" in seen["same"]
    assert seen["left"] == ["pgm"]
    assert re.match(r"AP of \d+ queries, mean", seen["alone"])
