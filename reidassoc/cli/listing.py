"""``reidassoc list`` and ``reidassoc show``: what plug-ins there are, and what each takes."""

from __future__ import annotations

import os
import sys

import click

from reidassoc.cli.options import load_plugins, plugin_option

PIPED = 300  # columns where nobody said how many there are: a plug-in is a line, for grep


@click.command("list", short_help="List plug-ins and recipes.")
@click.argument("kind", required=False)
@plugin_option
def list_plugins(kind: str | None, plugins: tuple[str, ...]) -> None:
    """List plug-ins: name, claim, paper, origin, licence. One that fails to load is shown with its reason.

    \b
    Examples:
      reidassoc list
      reidassoc list associators
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    import reidassoc.registry as registry
    from reidassoc.interfaces.plugins import KINDS
    from reidassoc.recipe.load import shipped_recipes
    from reidassoc.registry.entry import kind_of

    load_plugins(plugins)
    narrow = sys.stdout.isatty() or "COLUMNS" in os.environ
    console = Console(highlight=False, width=None if narrow else PIPED)
    for each in [kind_of(kind)] if kind else KINDS:
        table = Table(title=each, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("name", no_wrap=True)
        table.add_column("what it does")
        table.add_column("paper")
        table.add_column("origin", no_wrap=True)
        table.add_column("licence", no_wrap=True)
        for entry in registry.entries(each, outlined=True):
            claim = f"[red]can't be loaded:[/] {_plain(entry.problem)}" if entry.problem else _plain(entry.claim)
            table.add_row(entry.name, claim, _plain(entry.paper), _plain(entry.origin), _plain(entry.licence))
        console.print(table)
    if kind is None:
        console.print("recipes: " + ", ".join(shipped_recipes()), markup=False)


@click.command(short_help="Show a plug-in's options and documentation.")
@click.argument("names", nargs=-1, required=True, metavar="[KIND] NAME|FILE")
@plugin_option
def show(names: tuple[str, ...], plugins: tuple[str, ...]) -> None:
    """Show a plug-in's options with types, defaults and ranges, and its documentation; without KIND, all of that NAME; or
    those of a file.

    \b
    Examples:
      reidassoc show mult
      reidassoc show clusterer dbscan
      reidassoc show my_idea.py
    """
    import inspect

    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    import reidassoc.registry as registry
    from reidassoc.registry.entry import kind_of
    from reidassoc.registry.options import options_of

    load_plugins(plugins)
    if len(names) > 2:
        raise click.UsageError("expected NAME or KIND NAME, as in: reidassoc show associator mult")
    name = names[-1]
    if name.endswith(".py"):
        shown = [(entry.kind, entry.name) for entry in registry.load_file(name)]
    else:
        shown = [(kind, name) for kind in ([kind_of(names[0])] if len(names) == 2 else registry.kinds_of(name))]
    console = Console(highlight=False)
    for kind, name in shown:
        cls, entry = registry.get(kind, name, outlined=True), registry.find(kind, name, outlined=True)
        console.print(f"[bold]{kind.removesuffix('s')} {name}[/]  ({_plain(entry.origin)})")
        console.print(_flowing(inspect.getdoc(cls) or ""), markup=False)
        if entry.paper:
            console.print(f"\nPaper: {entry.paper}", markup=False)
        if needed := sorted(getattr(cls, "needs", ())):
            console.print(f"Needs: {', '.join(needed)}")
        given = getattr(cls, "gives", None)
        if isinstance(given, frozenset) and given:  # a network's depends on its options
            console.print(f"Gives: {', '.join(sorted(given))}")
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for heading in ("option", "type", "default", "range", "meaning"):
            table.add_column(heading, overflow="fold")  # a default that is cut can't be typed
        for option in options_of(cls):
            row = (option.name, option.type, option.default, option.range, option.doc)
            table.add_row(*map(_plain, row))
        if table.row_count:
            console.print(table)
        console.print()


def _flowing(text: str) -> str:
    """A docstring with each paragraph on one line, for the terminal to break; examples and indented blocks stay."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(p if p.startswith(">>>") or "\n " in p else p.replace("\n", " ") for p in paragraphs)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
