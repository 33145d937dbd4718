"""Offload bundles: plain and all CCOB versions, several in one section."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import bundle, elf

from fatpatch.survey import survey
from fatpatch.walk import inspected

IMAGES = [("gfx1030", bundle.code_object(0x36)), ("gfx90a:xnack+", bundle.code_object(0x3F, ("k", "other")))]


@pytest.mark.parametrize("form", ["plain", "v1", "v2", "v3", "v2-zlib"])
def test_bundles_in_a_section(tmp_path: Path, form: str) -> None:
    data = bundle.plain(IMAGES)
    if form != "plain":
        data = bundle.ccob(data, int(form[1]), 0 if form.endswith("zlib") else 1)
    count = 1 if form == "v1" else 2  # version 1 has no size: it runs to the end of the section
    padded = data + bytes(-len(data) % 4096)
    path = tmp_path / "x.so"
    path.write_bytes(elf.shared_object([(".hip_fatbin", padded * count)]))
    with inspected(str(path)) as node:
        assert [payload.kind for payload in node.payloads] == ["offload_bundle"] * count
        assert [image.target for payload in node.payloads for image in payload.images] == ["gfx1030", "gfx90a:xnack+"] * count
        findings = [finding for _, finding in survey([node], limit=1 << 24, jobs=1)]
    assert not node.diagnostics
    assert [[row[0] for row in finding.rows or ()] for finding in findings] == [["k"], ["k", "other"]] * count
    assert findings[0].rows[0][1:4] == (12, 64, 8)
    assert findings[0].rows[0][6] == ((0, 8),)


def test_bare_bundle_and_code_object(tmp_path: Path) -> None:
    path = tmp_path / "x.hipfb"
    path.write_bytes(bundle.ccob(bundle.plain(IMAGES), 3))
    with inspected(str(path)) as node:
        assert (node.container, node.payloads[0].format, node.payloads[0].found_by) == ("bundle", "ccob", ("file",))
    path.write_bytes(bundle.code_object(0x30 | 3 << 8))
    with inspected(str(path)) as node:
        assert (node.container, node.payloads[0].images[0].target) == ("elf", "gfx908:xnack+")


def test_entry_that_reaches_outside(tmp_path: Path) -> None:
    data = bytearray(bundle.plain(IMAGES))
    at = data.index(b"hipv4") - 16
    data[at : at + 8] = (1 << 40).to_bytes(8, "little")
    path = tmp_path / "x.hipfb"
    path.write_bytes(bytes(data))
    with inspected(str(path)) as node:
        assert [item.field for item in node.diagnostics] == ["entry size"]
        assert [image.readable for image in node.payloads[0].images] == [False, True]
