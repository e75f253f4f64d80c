"""Options that several commands share, and the front page of the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click

from reidassoc.errors import nearest_name

GROUPS = {
    "Train and evaluate": ("run", "evaluate", "reproduce", "import-checkpoint"),
    "Compare": ("bench", "table", "report"),
    "Features, without training": ("features", "lab", "advise", "associate"),
    "Plug-ins": ("list", "show", "new", "check"),
    "Datasets": ("data",),
}

plugin_option = click.option(
    "--plugin",
    "plugins",
    multiple=True,
    metavar="FILE",
    help="A Python file with plug-ins; its code is run; may be repeated.",
)
device_option = click.option(
    "--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda or cuda:N."
)
seed_option = click.option(
    "--seed",
    default=0,
    show_default=True,
    metavar="N",
    type=click.IntRange(min=0),
    help="For methods that draw at random.",
)
memory_option = click.option(
    "--memory-limit",
    metavar="GIB",
    type=click.FloatRange(min=0, min_open=True),
    help="What one dense array of the label stage may take; larger ones become sparse.  [default: 2]",
)
root_option = click.option("--data", "root", metavar="ROOT", help="Folder of a dataset that is kept on disk.")
pictures_option = click.option(
    "--no-pictures",
    is_flag=True,
    help="Keep and show no picture of the dataset, as agreements of datasets of real people may demand.",
)
weights_option = click.option(
    "--weights", metavar="NAME|FILE", help="Initial weights of the network: imagenet, none, or a file."
)


def to_stderr(text: str) -> None:
    """Where progress goes: beside the output, which may be read by a program."""
    click.echo(text, err=True)


def seeds_option(meaning: str) -> Callable[[Any], Any]:
    """``--seed`` of a command that makes several runs."""
    return click.option(
        "--seed",
        "seeds",
        multiple=True,
        metavar="N",
        type=click.IntRange(min=0),
        help=f"{meaning}; may be repeated.",
    )


def load_plugins(files: Iterable[str]) -> None:
    """Register the plug-ins of the files, whose code is run."""
    for file in files:
        import reidassoc.registry as registry  # late: help must not import torch

        registry.load_file(file)


class FrontPage(click.Group):
    """Commands by what they are for, in the order in which one meets them."""

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands and not args[0].startswith("-"):
            names = [name for group in GROUPS.values() for name in group]
            context.fail(f"No such command '{args[0]}'{nearest_name(args[0], names)}; there are: {', '.join(names)}")
        return super().resolve_command(context, args)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        listed = {name for names in GROUPS.values() for name in names}
        others = tuple(name for name in self.list_commands(context) if name not in listed)
        for title, names in {**GROUPS, "Others": others}.items():
            rows = [(name, self.commands[name].get_short_help_str(limit=60)) for name in names]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
