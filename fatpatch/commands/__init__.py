"""The command line: the only place that prints or exits. Each command is a file, imported when it is called."""

from __future__ import annotations

import errno
import importlib
import os
import sys

import click

from fatpatch import __version__
from fatpatch.base.errors import EXIT_CODES, EXIT_INTERRUPTED, EXIT_OK, FatpatchError, InputError, InternalError
from fatpatch.commands._shared.console import print_error
from fatpatch.commands._shared.grouped import GroupOfCommands

GROUPS = {
    "Look": ("inspect", "extract", "report"),
    "Judge": ("doctor", "releases", "check", "diff"),
    "Edit": ("graft", "retarget", "prune", "slim", "recompress", "expand", "undo", "verify"),
    "Many files": ("audit", "query", "db"),
    "Reference": ("gpus", "formats"),
}
"""The commands as ``fatpatch --help`` groups them."""

COMMANDS = tuple(name for names in GROUPS.values() for name in names)
_SUMMARY = 60
_SHELLS = ("bash", "zsh", "fish", "powershell")
_EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code:>3}  {words}" for code, words in EXIT_CODES)


def load(name: str) -> click.Command:
    """A command, imported now, with the options that every command has."""
    from fatpatch.commands._shared.quiet import quieted

    command: click.Command = importlib.import_module(f"fatpatch.commands.{name}.command").command
    return quieted(command)


class _Commands(GroupOfCommands):
    """Loads a command's module only when that command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return load(cmd_name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with the nearest names for a command that does not exist."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            close = difflib.get_close_matches(args[0], COMMANDS, 3, 0.5)
            hint = f"\n  hint: did you mean {' or '.join(close)}?" if close else "\n  hint: 'fatpatch --help' lists the commands"
            ctx.fail(f"no such command {args[0]!r}{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands in their groups."""
        for title, names in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self._summary(ctx, name)) for name in names])

    def _summary(self, ctx: click.Context, name: str) -> str:
        command = self.get_command(ctx, name)
        return "" if command is None else command.get_short_help_str(_SUMMARY)


def _print_completion(context: click.Context, parameter: click.Parameter, shell: str | None) -> None:
    """``--completion SHELL``: the script, and no command."""
    if shell is not None and not context.resilient_parsing:
        from fatpatch.commands._shared.completion import script

        click.echo(script(context.command, "fatpatch", shell), nl=False)
        context.exit()


@click.group(cls=_Commands, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fatpatch", message="%(prog)s %(version)s")
@click.option("--traceback", is_flag=True, help="Show the Python stack of an error (for bug reports).")
@click.option("-q", "--quiet", is_flag=True, help="Print the verdict only; errors are still shown.")
@click.option(
    "--completion",
    type=click.Choice(_SHELLS),
    metavar="SHELL",
    is_eager=True,
    expose_value=False,
    callback=_print_completion,
    help="Print the completion script for bash, zsh, fish or powershell.",
)
@click.pass_context
def cli(context: click.Context, quiet: bool, traceback: bool) -> None:
    """Inspect, judge and repair the GPU code inside shipped binaries."""
    if quiet:
        from fatpatch.commands._shared.quiet import ask

        ask(context)


def main() -> None:
    """Run the command line and exit."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (for the rest of the run)
        else:
            stream.reconfigure(errors="backslashreplace")  # a name that the output cannot encode must not end the run
    _end_by_signal()
    code = run()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        _silence()
    except OSError:
        code = code or InputError.exit_code
    if workers := sys.modules.get("multiprocessing"):
        for worker in workers.active_children():  # none, unless the run was cut short
            worker.terminate()
    os._exit(code)  # everything is closed and written: tearing down a million records would only take time


def _end_by_signal() -> None:
    """Being told to end is like Ctrl-C: temporary files are removed, workers ended."""
    import signal

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, end)


def run() -> int:
    """Run the command line; the exit code."""
    debug = "--traceback" in sys.argv
    if "_FATPATCH_COMPLETE" in os.environ:
        from fatpatch.commands._shared.completion import register

        register()
    try:
        return int(cli.main(standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("fatpatch: interrupted", err=True)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _silence()
        return EXIT_OK
    except FatpatchError as error:
        if debug:
            raise
        print_error(error)
        return error.exit_code
    except SystemExit:  # click ends so when the reader of the output has gone
        _silence()
        return EXIT_OK
    except OSError as error:
        if debug:
            raise
        writing = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF)
        what = "cannot write the output" if writing else "the system refused"
        hint = "look whether the disk is full" if writing else "look at the folder and its permissions"
        print_error(InputError(f"{what}: {error.strerror}", locator=str(error.filename or ""), hint=hint))
        return InputError.exit_code
    except Exception as error:
        if debug:
            raise
        click.echo(f"fatpatch: internal error: {type(error).__name__}: {error!s:.300}", err=True)
        click.echo("  hint: this is a bug; run again with 'fatpatch --traceback ...' and report what it prints", err=True)
        return InternalError.exit_code


def _silence() -> None:
    """After a closed pipe, keep the interpreter from complaining at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
