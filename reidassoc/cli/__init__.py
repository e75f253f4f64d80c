"""The command line. A command translates: parse, one library call, print. Heavy imports are inside the commands, since
``--help`` must not import torch.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings

import click

from reidassoc._version import __version__
from reidassoc.cli.associate import associate
from reidassoc.cli.author import check, new
from reidassoc.cli.bench import bench
from reidassoc.cli.consoles import spell_what_consoles_lack
from reidassoc.cli.data import data
from reidassoc.cli.evaluate import evaluate
from reidassoc.cli.features import features
from reidassoc.cli.import_checkpoint import import_checkpoint
from reidassoc.cli.lab import advise, lab
from reidassoc.cli.listing import list_plugins, show
from reidassoc.cli.options import FrontPage
from reidassoc.cli.report import report
from reidassoc.cli.reproduce import reproduce
from reidassoc.cli.run import run
from reidassoc.cli.table import table
from reidassoc.engine.devices import processes
from reidassoc.errors import RankLost, ReidassocError

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


def one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning as a person reads it, without its place in the code."""
    return f"Warning: {' '.join(str(message).split())}\n"


def main() -> None:
    """Run the command line; an error of ours ends in one line and exit code 2."""
    # Before torch is loaded: OpenMP's threads wait asleep, not spinning, or two runs on the same cores all but stop each other.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    warnings.formatwarning = one_line
    spell_what_consoles_lack()
    if not processes.several_here():
        signal.signal(signal.SIGTERM, interrupt)
    elif not processes.first():  # has nothing to tidy up, and may be waiting for the others
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    code = 0
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Abort as stopped:
        if str(stopped):
            click.echo(f"\n{stopped}", err=True)
        code = INTERRUPTED
    except click.ClickException as error:
        error.show()
        code = BAD_INPUT
    except click.exceptions.Exit as done:
        code = done.exit_code
    except ReidassocError as error:
        if isinstance(error, RankLost):
            processes.give_way()
        click.echo(f"Error: {error}", err=True)
        code = BAD_INPUT
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        code = 1
    except MemoryError:
        click.echo("Error: out of memory; take fewer or narrower features, or a smaller batch", err=True)
        code = BAD_INPUT
    except Exception:
        if not processes.several_here():
            raise
        traceback.print_exc()
        code = 1
    if code and processes.several_here():
        processes.leave(code)
    sys.exit(code)
