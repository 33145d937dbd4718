"""One self-contained page: no network, no script from elsewhere (the policy in it names the hashes of its own), all names escaped."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from fatpatch import __version__
from fatpatch.api.contents import HOPELESS, Answer
from fatpatch.base.shared_names import shared_beginning

_TITLES = {"kernels": "Kernels and targets", "diff": "Kernels and targets", "files": "Files and GPUs"}
_LESS = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def page(
    template: str, *, title: str, parts: Sequence[tuple[str, str]], explored: Sequence[Mapping[str, Any]], mode: str, **values: Any
) -> str:
    """The text of a page. ``parts``: (id, name) of what the navigation lists; ``explored``: what the script shows, one a file.

    ``mode``: kernels of a release, a diff of two, or the indexed files.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("fatpatch.commands._shared", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["arrow"] = lambda words: str(words).replace("->", "\u2192")
    folder = files("fatpatch.commands._shared") / "pages"
    style, script = ((folder / name).read_text("utf-8") for name in ("page.css", "page.js"))
    names = [each["name"] for each in explored]
    shared = shared_beginning(names)
    more = [("kernels", _TITLES[mode])] if explored else []
    more += [("bytes", "Bytes")] if explored and mode == "kernels" else []
    return environment.get_template(template).render(
        title=title,
        version=__version__,
        security=_policy(style, script),
        style=style,
        script=script,
        data=_embedded({"mode": mode, "holders": list(explored)}),
        parts=[{"id": name, "name": words.removeprefix(shared)} for name, words in (*parts, *more)],
        explorer=bool(explored),
        treemap=bool(explored) and mode == "kernels",
        explorer_title=_TITLES[mode],
        holders=names,
        shared=shared,
        **values,
    )


def _policy(style: str, script: str) -> str:
    """The content security policy: nothing is loaded, and no other style or script runs."""
    return f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _embedded(data: Any) -> str:
    """JSON that can stand inside a script element."""
    return json.dumps(data, separators=(",", ":")).translate(_LESS)


def grade(answer: Answer) -> str:
    """Good, maybe or bad: the colour of a verdict."""
    return "good" if answer.works else "bad" if answer.outcome in HOPELESS else "maybe"
