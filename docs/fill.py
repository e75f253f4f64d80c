"""What programs know better than authors, written into the pages between markers: python docs/fill.py

<!-- options: associator mult --> … <!-- end -->          a plug-in's options, as `reidassoc show` has them
<!-- source: associator --> … <!-- end -->                what `reidassoc new associator my_idea --file` writes
<!-- output: reidassoc check careless.py --> … <!-- end -->  what a command prints beside careless.py and the lab page's mine.npz
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from reidassoc import registry
from reidassoc.registry.options import options_of
from reidassoc.scaffold import source as scaffolded

DOCS = Path(__file__).parent
PIECE = re.compile(r"<!-- (options|source|output): (.+?) -->\n.*?<!-- end -->", re.DOTALL)
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


def options(plugin: str) -> str:
    """A Markdown table of a plug-in's options."""
    kind, name = plugin.split()
    rows = [
        f"| `{o.name}` | {escaped(o.type)} | `{o.default}` | {escaped(o.range)} | {escaped(o.doc)} |"
        for o in options_of(registry.get(kind, name))
    ]
    head = [
        f"Options of {kind} `{name}`:",
        "",
        "| option | type | default | range | meaning |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*head, *rows])


def escaped(text: str) -> str:
    return text.replace("|", "\\|")


def source(kind: str) -> str:
    """The file that an author starts from."""
    return f"```python\n{scaffolded(kind, 'my_idea')}```"


def output(command: str) -> str:
    """What a command prints."""
    page = (DOCS / "lab.md").read_text(encoding="utf-8")
    (features,) = re.findall(r"^```python\n([^`]*mine\.npz[^`]*identity_infrared=[^`]*)^```", page, re.MULTILINE)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "careless.py").write_text(CARELESS, encoding="utf-8")
        told = {"cwd": folder, "env": {**os.environ, "COLUMNS": "110"}, "capture_output": True, "text": True}
        if "mine.npz" in command:
            subprocess.run([sys.executable, "-c", features], check=True, **told)  # type: ignore[call-overload]
        done = subprocess.run([sys.executable, "-m", *shlex.split(command)], check=False, **told)  # type: ignore[call-overload]
    printed = "\n".join(line.rstrip() for line in f"{done.stdout}{done.stderr}".splitlines())
    return f"```text\n{printed}\n```"


FILL = {"options": options, "source": source, "output": output}


def filled(page: str) -> str:
    """A page with every piece made anew."""
    return PIECE.sub(lambda m: f"<!-- {m[1]}: {m[2]} -->\n\n{FILL[m[1]](m[2])}\n\n<!-- end -->", page)


if __name__ == "__main__":
    for path in sorted(DOCS.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        path.write_text(filled(text), encoding="utf-8")
