"""What mkdocs fills into the pages as it builds them: tables of options, sources, and what commands print.

<!-- options: associator mult -->    the options of a plug-in, as `reidassoc show` has them
<!-- source: associator -->          what `reidassoc new associator my_idea --file` writes
<!-- output: reidassoc check careless.py -->  what that command prints, in a folder that holds careless.py and mine.npz,
                                              as the page on the lab makes it
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CARELESS = '''\
from dataclasses import dataclass

from reidassoc import Association, Associator, Pair, Scene, SoftLabels


@dataclass(frozen=True, kw_only=True)
class Careless(Associator):
    """Give every sample the nearest centroid of the other modality."""

    def __call__(self, scene: Scene) -> Association:
        own = scene.clustering.own

        def cross(modality):
            similarity = scene.features[modality].x @ own[modality.other].centroids.T
            return SoftLabels.one_hot(similarity.argmax(1), own[modality.other].count)

        return Association(cross=Pair.build(cross))
'''


def options(kind: str, name: str) -> str:
    """A Markdown table of a plug-in's options."""
    from reidassoc import registry
    from reidassoc.options import options_of

    rows = [
        f"| `{o.name}` | {escaped(o.type)} | `{o.default}` | {escaped(o.range)} | {escaped(o.doc)} |"
        for o in options_of(registry.get(kind, name))
    ]
    return "\n".join(
        [
            f"Options of {kind} `{name}`:",
            "",
            "| option | type | default | range | meaning |",
            "|---|---|---|---|---|",
            *rows,
        ]
    )


def escaped(text: str) -> str:
    return text.replace("|", "\\|")


def source(kind: str) -> str:
    """The file that an author starts from."""
    from reidassoc.scaffold import source as text

    return f"```python\n{text(kind, 'my_idea')}```"


def output(command: str) -> str:
    """What a command prints."""
    page = Path(__file__).with_name("lab.md").read_text(encoding="utf-8")
    (features,) = re.findall(r"^```python\n([^`]*mine\.npz[^`]*identity_infrared=[^`]*)^```", page, re.MULTILINE)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "careless.py").write_text(CARELESS, encoding="utf-8")
        told = {"cwd": folder, "env": {**os.environ, "COLUMNS": "110"}, "capture_output": True, "text": True}
        if "mine.npz" in command:
            subprocess.run([sys.executable, "-c", features], check=True, **told)
        done = subprocess.run([sys.executable, "-m", *shlex.split(command)], **told)
    printed = "\n".join(line.rstrip() for line in f"{done.stdout}{done.stderr}".splitlines())
    return f"```text\n{printed}\n```"


FILL = {"options": options, "source": source}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for every page."""
    markdown = re.sub(r"<!-- output: (.+?) -->", lambda m: output(m[1]), markdown)
    return re.sub(r"<!-- (options|source): (.+?) -->", lambda m: FILL[m[1]](*m[2].split()), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Docstrings name functions as Sphinx would; here they are plain code. Code in tables may break after its signs."""
    html = re.sub(r":(?:func|class|mod|meth):(?=<code>)", "", html)
    return re.sub(r"<td[ >].*?</td>", lambda cell: re.sub(r"<code>[^<]*</code>", breakable, cell[0]), html, flags=re.S)


def breakable(code: re.Match[str]) -> str:
    """A piece of code with a place to break after each sign within it; those of entities are none."""
    return re.sub(r"(?<=\w)([./,=]|[(\[]|::)(?=[\w&'\"])", r"\1<wbr>", code[0])
