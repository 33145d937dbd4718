"""The options by which names are resolved, and the units and files that a command line names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fatpatch.commands._shared.options import NAMING, limits_from, shown_paths
from fatpatch.commands._shared.remote_options import keep

if TYPE_CHECKING:
    from fatpatch.api.naming import Input, NamedUnit, NamingChoices

_Command = TypeVar("_Command", bound=Callable[..., object])


def _keep(context: click.Context, parameter: click.Parameter, value: object) -> None:
    context.meta.setdefault(NAMING, {})[parameter.name] = value


def naming_options(command: _Command) -> _Command:
    """--python, --index, --platform and --python-version, for commands that take more than files."""
    index = click.option(
        "--index",
        "index_url",
        metavar="URL",
        expose_value=False,
        callback=_keep,
        help="Index for pypi:NAME and npm:NAME (default: pip's, npm's).",
    )
    return environment_option(index(platform_options(command)))


def environment_option(command: _Command) -> _Command:
    """--python, where an installed distribution is looked for."""
    return click.option(
        "--python", metavar="PATH", expose_value=False, callback=_keep, help="Environment, or its Python, for NAME (default: active)."
    )(command)


def platform_options(command: _Command) -> _Command:
    """--platform and --python-version, by which a wheel or an image is picked, and --plain-http."""
    for option in (
        click.option("--plain-http", is_flag=True, expose_value=False, callback=keep, help="Ask the registry of oci:HOST/NAME by http."),
        click.option(
            "--python-version", metavar="VERSION", expose_value=False, callback=_keep, help="Python of the wheel for pypi:NAME, e.g. 3.11."
        ),
        click.option(
            "--platform",
            metavar="TAG",
            expose_value=False,
            callback=_keep,
            help="Platform of the wheel for pypi:NAME (win_amd64), or of a container image (linux/arm64).",
        ),
    ):
        command = option(command)
    return command


def choices() -> NamingChoices:
    """What the options say."""
    from fatpatch.api.naming import NamingChoices

    given: dict[str, Any] = click.get_current_context().meta.get(NAMING, {})
    return NamingChoices(**given, remote=limits_from(0).remote)


def named_units(words: Sequence[str]) -> list[NamedUnit]:
    """The units that the words name."""
    from fatpatch.api.naming import resolve

    return resolve(words, shown_paths(words), choices())


def named_files(words: Sequence[str]) -> list[Input]:
    """The files that the words name, one by one."""
    from fatpatch.api.naming import files_of

    return files_of(named_units(words))
