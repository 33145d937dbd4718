"""Options and small things that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

import click

from fatpatch.base.limits import Fetched, Limits, Remote
from fatpatch.base.locator import STANDARD_INPUT
from fatpatch.commands._shared import quiet
from fatpatch.commands._shared.remote_options import keep, remote_options
from fatpatch.commands._shared.standard_input import is_standard_input
from fatpatch.commands._shared.typed import OptionType
from fatpatch.model.tree import Diagnostic

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


NAMING = "fatpatch.naming"
"""Where the options of ``naming.naming_options`` are kept for a run."""


class Bytes(OptionType[int]):
    """A size such as 500000, 192M or 4G (powers of 1024)."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value).strip().upper().removesuffix("B").removesuffix("I")
        factor = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}.get(text[-1:], 1)
        digits = text[:-1] if factor > 1 else text
        if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
            self.fail(f"{value!r} is not a size; write for example 500000, 192M or 4G", param, ctx)
        return int(digits) * factor


_OF_REMOTE = {"max_download": "most"}
"""Fields of ``Remote`` that are not called as their options are."""


def limits_from(max_image_size: int) -> Limits:
    """The limits of a run: the size of an image, and what the options for addresses say."""
    given = remote_options(click.get_current_context())
    remote = Remote(report=_tell)._replace(**{_OF_REMOTE.get(name, name): value for name, value in given.items()}) if given else Remote()
    platform: str | None = click.get_current_context().meta.get(NAMING, {}).get("platform")
    return Limits(image=max_image_size, remote=remote, platform=platform)


def _tell(found: Fetched) -> None:
    """How much of a remote file was fetched, on stderr."""
    from fatpatch.base.words import plural, size

    quiet.note(f"fetched {size(found.fetched)} of {size(found.size)} in {plural(found.requests, 'request')}: {found.shown}")


class GpuName(OptionType[str]):
    """A GPU by name, target or PCI id; in an environment variable several are separated by commas. Completed from the tables."""

    name = "name"
    envvar_list_splitter = ","

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Names that begin so."""
        from click.shell_completion import CompletionItem

        from fatpatch.api.gpus import product_names

        return [CompletionItem(name) for name in product_names(incomplete)[:_MAX_COMPLETIONS]]


class TargetName(OptionType[str]):
    """A target such as sm_61, or several with commas; completed from those that toolkits compile, after the last comma."""

    name = "target"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Targets that begin so."""
        from click.shell_completion import CompletionItem

        from fatpatch.api.gpus import known_targets

        before, comma, last = incomplete.rpartition(",")
        return [CompletionItem(before + comma + name) for name in known_targets() if name.startswith(last)]


_MAX_COMPLETIONS = 200
_Command = TypeVar("_Command", bound=Callable[..., object])


def image_limit_option(command: _Command) -> _Command:
    """The option of every command that unpacks images."""
    help_text = "Refuse to unpack an image larger than this."
    return click.option("--max-image-size", type=Bytes(), default="512M", show_default=True, help=help_text)(command)


def targets_option(help_text: str) -> Callable[[_Command], _Command]:
    """--target, as often as there are targets to choose."""
    return click.option("--target", "targets", type=TargetName(), multiple=True, metavar="TARGET", help=help_text)


def jobs_option(command: _Command) -> _Command:
    """The option of every command that reads with several processes."""
    help_text = "Number of parallel processes (default: one per processor)."
    return click.option("-j", "--jobs", type=click.IntRange(1, 256), metavar="N", help=help_text)(command)


def image_size_option(command: _Command) -> _Command:
    """The options of every command that reads files: what may be unpacked, and what may be fetched where FILE is an address."""
    for option in (
        click.option("--public-only", is_flag=True, expose_value=False, callback=keep, help="Refuse private addresses."),
        click.option(
            "--max-download",
            type=Bytes(),
            default="16G",
            show_default=True,
            is_eager=True,  # standard input is read when FILE is parsed
            expose_value=False,
            callback=keep,
            help="Refuse a URL or standard input larger than this.",
        ),
        image_limit_option,
    ):
        command = option(command)
    return command


def shown_paths(paths: Sequence[str]) -> list[str]:
    """How each path is named in results: as given; an absolute one by its last parts, as few as tell it from the others.

    An address is shown without what may be a secret in it, standard input as ``<stdin>``.
    """
    from fatpatch.api.naming import shown_paths as shown

    return shown([STANDARD_INPUT if is_standard_input(path) else path for path in paths])


def worse(first: int, second: int) -> int:
    """The exit code that says more: unreadable beats malformed beats fine."""
    order = (0, 1, 5, 4, 3)
    return max(first, second, key=lambda code: order.index(code) if code in order else len(order))


def print_diagnostics(items: Iterable[Diagnostic]) -> None:
    """Diagnostics on stderr, a line each."""
    from fatpatch.commands._shared.diagnostics import diagnostic_lines

    if quiet.asked():
        items = [item for item in items if item.level == "error"]
    for line in diagnostic_lines(items):
        click.echo(line, err=True)
