"""Commands that fatpatch proposes can be typed as they are printed, in the shell of the system."""

from __future__ import annotations

import shlex

import pytest

from fatpatch.base.shell_word import shell_word


@pytest.mark.parametrize("text", ["libx.so", "my file.so", "it's.so", "$HOME", "a;b", "", "-x", "a\\b"])
def test_posix(text: str) -> None:
    assert shlex.split(shell_word(text, windows=False)) == [text]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("C:\\x\\ggml-cuda.dll", "C:\\x\\ggml-cuda.dll"),
        ("C:\\Program Files\\a.dll", '"C:\\Program Files\\a.dll"'),
        ("a&b.dll", '"a&b.dll"'),
        ("it's.dll", '"it\'s.dll"'),
        ('a"&calc', '"a&calc"'),
        ("", '""'),
    ],
)
def test_windows(text: str, expected: str) -> None:
    assert shell_word(text, windows=True) == expected
