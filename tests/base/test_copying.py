"""Copies that keep holes."""

from __future__ import annotations

import os
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st

from fatpatch.base.copying import extents_of, write_around_zeros

runs = st.lists(st.tuples(st.sampled_from((b"\0", b"x")), st.integers(1, 9000)), max_size=6).map(
    lambda parts: b"".join(byte * length for byte, length in parts)
)


@settings(max_examples=60, deadline=None)
@given(runs, st.integers(0, 9000), st.integers(1, 5000))
def test_what_is_written_around_zeros_reads_the_same(data: bytes, at: int, step: int) -> None:
    with tempfile.TemporaryFile() as stream:
        stream.truncate(at + len(data))
        for start in range(0, len(data), step):
            write_around_zeros(stream.fileno(), at + start, data[start : start + step])
        stream.seek(0)
        assert stream.read() == bytes(at) + data
        for first in (0, at):
            held = extents_of(stream.fileno(), at + len(data), first)
            assert all(first <= start < end <= at + len(data) for start, end in held)
            outside = bytearray(bytes(at) + data)[first:]
            for start, end in held:
                outside[start - first : end - first] = bytes(end - start)
            assert not any(outside)


def test_zeros_stay_a_hole(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "sparse")
    with open(path, "w+b") as stream:
        stream.truncate(1 << 20)
        write_around_zeros(stream.fileno(), 100, b"x" + bytes(900_000) + b"y")
    assert os.stat(path).st_blocks * 512 <= 3 * 4096
