"""Write what the code says into the documentation: reference and manual pages, sessions in README and docs, the picture of the terminal.

python docs/generate.py            write
python docs/generate.py --check    exit code 1 when something is not up to date
"""

from __future__ import annotations

import html
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from man_pages import pages as man_pages

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
_SESSION = re.compile(r"```console\n\$ fatpatch (.+)\n((?:.|\n)*?)```")
_MARK = "<!-- Written by docs/generate.py: edit the code, not this page. -->\n\n"
_PICTURE = 'doctor samples/demo.llamafile --gpu "GTX 1060" --driver 535.154'
_LINES = 26


def run(command: str) -> str:
    """What a command prints, in 80 columns."""
    done = subprocess.run(
        [sys.executable, "-m", "fatpatch", *shlex.split(command)], cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False
    )
    return done.stdout


def sessions(text: str) -> str:
    """A page with the output of its sessions as it is now."""
    return _SESSION.sub(lambda found: f"```console\n$ fatpatch {found[1]}\n{run(found[1])}```", text)


def commands() -> Iterator[str]:
    """Every command with its help, grouped as in ``fatpatch --help``."""
    from fatpatch.commands import GROUPS, load

    yield "# Commands\n\n"
    yield "`FILE` may be a local file, a URL, or `-` for standard input wherever a command only reads. Every command has `-h` and `-q`; "
    yield "`fatpatch --version` shows the version.\n"
    for title, names in GROUPS.items():
        yield f"\n## {title}\n"
        for name in names:
            command = load(name)
            yield f"\n### fatpatch {name}\n\n```text\n{_help(command, name)}```\n"
            if isinstance(command, click.Group):
                for each, below in command.commands.items():
                    yield f"\n### fatpatch {name} {each}\n\n```text\n{_help(below, f'{name} {each}')}```\n"


def _help(command: click.Command, name: str) -> str:
    context = click.Context(
        command, info_name=f"fatpatch {name}", max_content_width=80, terminal_width=80, help_option_names=["-h", "--help"]
    )
    return command.get_help(context).rstrip() + "\n"


def schemas() -> Iterator[str]:
    """The JSON documents by schema."""
    yield "# JSON schemas\n\nThe schemas ship in the package, each beside the code that writes it. A number that was not computed is null, never 0.\n\n"
    yield "| schema | written by | top-level keys |\n|---|---|---|\n"
    for path in sorted((ROOT / "fatpatch").rglob("*.schema.json")):
        schema = json.loads(path.read_text("utf-8"))
        keys = ", ".join(f"`{key}`" for key in schema["properties"] if key not in ("schema", "tool_version"))
        yield f"| [`{schema['$id']}`]({_source(path)}) | `{schema['title']}` | {keys} |\n"


def policy() -> Iterator[str]:
    """The keys of a policy."""
    schema = json.loads((ROOT / "fatpatch/policy/policy-1.schema.json").read_text("utf-8"))
    yield "# Policy\n\nKeys of `fatpatch.toml`, or of `[tool.fatpatch]` in `pyproject.toml`. An unknown key is an error, with a suggestion.\n\n"
    yield "| key | value | meaning |\n|---|---|---|\n"
    yield from _keys(schema["properties"], schema["$defs"], "")


def _keys(properties: dict[str, dict[str, object]], definitions: dict[str, dict[str, object]], prefix: str) -> Iterator[str]:
    for key, given in properties.items():
        reference = str(given.get("$ref", "")).rpartition("/")[2]
        entry = {**definitions.get(reference, {}), **given}
        kind = entry.get("type") or ("one of " + ", ".join(f"`{each}`" for each in entry["enum"]) if "enum" in entry else "")  # type: ignore[attr-defined]
        if "const" in entry:
            kind = f"`{entry['const']}`"
        yield f"| `{prefix}{key}` | {kind} | {str(entry.get('description', '')).replace('|', '/')} |\n"
        items = entry.get("items")
        nested = entry.get("properties") or (items.get("properties") if isinstance(items, dict) else None)
        if isinstance(nested, dict) and not prefix and key != "files":
            yield from _keys(nested, definitions, f"{key}.")


def rules() -> Iterator[str]:
    """The rules of ``check``."""
    from fatpatch.policy.rules import RULES

    yield "# Check rules\n\n`fatpatch check --explain RULE` shows the same text.\n"
    for rule in RULES.values():
        yield f"\n## {rule.id} {rule.name}\n\n*{rule.level}*: {rule.summary}\n\n{rule.explanation}\n"


def exit_codes() -> Iterator[str]:
    """Exit codes, and the variables that are read."""
    from fatpatch.base.errors import EXIT_CODES

    yield "# Exit codes and environment\n\nResults go to standard output, everything else to standard error.\n\n| exit code | meaning |\n|---|---|\n"
    yield from (f"| {code} | {words} |\n" for code, words in EXIT_CODES)
    yield "\n| variable | meaning |\n|---|---|\n"
    yield from (f"| `{name}` | {words} |\n" for name, words in VARIABLES)


VARIABLES = (
    ("FATPATCH_GPU", "default for `--gpu` of `doctor`; several are separated by commas"),
    ("FATPATCH_DRIVER", "default for `--driver` of `doctor`"),
    ("NO_COLOR", "no colour"),
    ("TMPDIR", "where members of archives are unpacked"),
    ("http_proxy, https_proxy, no_proxy", "proxies for URLs"),
)
"""Environment variables that commands read."""


def layouts() -> Iterator[str]:
    """The binary layouts."""
    from fatpatch.commands.formats.command import describe, load
    from fatpatch.formats.names import FORMATS

    yield "# Binary layouts\n\n`fatpatch formats NAME` prints the same text.\n"
    for name in FORMATS:
        yield f"\n## {name}\n\n```text\n" + "".join(f"{line}\n" for line in describe(load(name))) + "```\n"


def _source(path: Path) -> str:
    return f"https://example.invalid/fatpatch/{path.relative_to(ROOT).as_posix()}"


def picture() -> str:
    """The first lines of a verdict as a terminal shows them."""
    lines = [f"$ fatpatch {_PICTURE}", *run(_PICTURE).splitlines()][:_LINES]
    width, height = 8.4 * 82, 18 * (len(lines) + 2)
    rows = "".join(
        f'<text x="14" y="{34 + 18 * index}" class="{_look(line)}">{html.escape(line)}</text>\n' for index, line in enumerate(lines)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" role="img" aria-label="fatpatch doctor in a terminal">\n'
        "<style>text{font:14px ui-monospace,Menlo,Consolas,monospace;fill:#d8dee9;white-space:pre}"
        ".verdict{fill:#ff8a80;font-weight:bold}.prompt{fill:#a3be8c}.note{fill:#8f9bb3}</style>\n"
        f'<rect width="100%" height="100%" rx="8" fill="#1b1f27"/>\n{rows}</svg>\n'
    )


def _look(line: str) -> str:
    return "prompt" if line.startswith("$") else "verdict" if line.startswith("WILL ") else "note" if line.startswith("note") else "plain"


PAGES = {
    "commands.md": commands,
    "schemas.md": schemas,
    "policy.md": policy,
    "rules.md": rules,
    "exit-codes.md": exit_codes,
    "layouts.md": layouts,
}


def wanted() -> Iterator[tuple[Path, str]]:
    """Every file that is written, with its text."""
    for name, make in PAGES.items():
        yield ROOT / "docs/reference" / name, _MARK + "".join(make())
    for name, text in man_pages(VARIABLES):
        yield ROOT / "docs/man" / name, text
    yield ROOT / "docs/terminal.svg", picture()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        text = path.read_text("utf-8")
        if _SESSION.search(text) and "reference" not in path.parts:
            yield path, sessions(text)


def main() -> int:
    """Write the files, or say which are not up to date."""
    stale = [(path, text) for path, text in wanted() if not path.exists() or path.read_text("utf-8") != text]
    for path, text in stale:
        if "--check" in sys.argv:
            print(f"not up to date: {path.relative_to(ROOT)}; run python docs/generate.py")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
