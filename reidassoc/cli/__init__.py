"""The command line. A command translates: parse, one library call, print. Heavy imports are inside the commands, since
``--help`` must not import torch.
"""

from __future__ import annotations

import os
import signal
import sys

import click

from reidassoc import __version__
from reidassoc.cli.associate import associate
from reidassoc.cli.author import check, new
from reidassoc.cli.bench import bench
from reidassoc.cli.consoles import spell_what_consoles_lack
from reidassoc.cli.data import data
from reidassoc.cli.evaluate import evaluate
from reidassoc.cli.features import features
from reidassoc.cli.imported import import_checkpoint
from reidassoc.cli.lab import advise, lab
from reidassoc.cli.listing import list_plugins, show
from reidassoc.cli.options import FrontPage
from reidassoc.cli.report import report
from reidassoc.cli.reproduce import reproduce
from reidassoc.cli.run import run
from reidassoc.cli.table import table
from reidassoc.engine import processes
from reidassoc.errors import ReidassocError

BAD_INPUT = 2
INTERRUPTED = 130


@click.group(cls=FrontPage, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="reidassoc")
def cli() -> None:
    """Unsupervised visible-infrared person re-identification, with every step as a plug-in.

    \b
    Examples:
      reidassoc run --associator mult
      reidassoc COMMAND --help
    """


for command in (
    run, evaluate, list_plugins, show, associate, features, lab, advise, data, bench, table, report, reproduce, import_checkpoint,
    new, check,
):  # fmt: skip
    cli.add_command(command)


def interrupt(number: int, frame: object) -> None:
    """End as after Ctrl-C: what is whole is saved, and how to go on is said."""
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line; an error of ours ends in one line and exit code 2."""
    # Before torch is loaded: OpenMP's threads wait asleep, not spinning, or two runs on the same cores all but stop each other.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    spell_what_consoles_lack()
    if processes.stops_in_order():  # others of several processes end at once: they may be waiting for each other
        signal.signal(signal.SIGTERM, interrupt)
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Abort as stopped:
        if str(stopped):
            click.echo(f"\n{stopped}", err=True)
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(BAD_INPUT)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except ReidassocError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except MemoryError:
        click.echo("Error: out of memory; take fewer or narrower features, or a smaller batch", err=True)
        sys.exit(BAD_INPUT)
