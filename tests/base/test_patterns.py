"""A pattern that is compiled when it is used answers as one that is compiled at once."""

from __future__ import annotations

import re
import subprocess
import sys

from fatpatch.base.patterns import lazy_pattern


def test_it_answers_as_re_does() -> None:
    lazy, usual = lazy_pattern(r"(?P<name>[a-z]+)(\d*)", re.IGNORECASE), re.compile(r"(?P<name>[a-z]+)(\d*)", re.IGNORECASE)
    text = "Sm90 compute75"
    for _ in range(2):
        assert [found.span() for found in lazy.finditer(text)] == [found.span() for found in usual.finditer(text)]
        assert lazy.findall(text) == usual.findall(text)
        assert lazy.sub("x", text) == usual.sub("x", text)
        assert lazy.split(text) == usual.split(text)
        assert lazy.fullmatch("!") is None
        found = lazy.search(text)
        assert found is not None
        assert found["name"] == "Sm"
    assert (lazy.pattern, lazy.flags, lazy.groups, dict(lazy.groupindex)) == (
        usual.pattern,
        usual.flags,
        usual.groups,
        dict(usual.groupindex),
    )
    assert lazy_pattern(rb"\x7fELF").match(b"\x7fELF\2") is not None


def test_a_start_compiles_none_that_it_does_not_use() -> None:
    code = (
        "import re, sys; seen = []; compiled = re._compiler.compile\n"
        "def spy(text, flags=0):\n    seen.append(sys._getframe(3).f_globals.get('__name__', '')); return compiled(text, flags)\n"
        "import fatpatch.commands\nre._compiler.compile = spy\n"
        "import fatpatch.verdicts.judge, fatpatch.gpus.products, fatpatch.gpucode.ptx.read\n"
        "print([name for name in seen if name.startswith('fatpatch')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
