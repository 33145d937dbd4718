"""Real shipped binaries: expected counts, and every fatbin re-serialised byte for byte by its declared layout."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from builders.layouts import build_layout, parse_layout
from conftest import Run, corpus_path, corpus_rows

from fatpatch.formats.fatbin import FATBIN
from fatpatch.scan.walk import inspected

pytestmark = pytest.mark.corpus
ROWS = corpus_rows()


def name(row: dict[str, object]) -> str:
    return Path(str(row["member"])).name


@pytest.mark.parametrize("row", ROWS, ids=name)
def test_counts(run: Run, row: dict[str, object]) -> None:
    done = run("inspect", "--kernels", "--format", "json", corpus_path(row))
    assert (done.returncode, done.stderr) == (0, "")
    file = json.loads(done.stdout)["files"][0]
    expected = dict(row["expected"])
    summary = file["summary"]
    # The rows of hosts count what is in fatbins; libcupti.so has cubins beside them.
    payloads = [payload for payload in file["payloads"] if payload["kind"] == "fatbin" or not summary["fatbins"]]
    images = [image for payload in payloads for image in payload["images"]]
    names = {
        kind: {k["name"] for i in images if (i["kind"] == "ptx") == (kind == "ptx") for k in i["kernels"] or ()} for kind in ("ptx", "sass")
    }
    found = {
        "container": file["container"],
        "fatbins": summary["fatbins"],
        "bundles": summary["bundles"],
        "bundle_format": file["payloads"][0]["format"] if file["payloads"] else None,
        "images": len(images),
        "images_by_target": dict(Counter(image["target"] for image in images)),
        "kernels": len(names["sass"] | names["ptx"]),
        "kernels_in_sass": len(names["sass"]),
        "kernels_in_ptx": len(names["ptx"]),
        "stored_bytes": sum(image["stored_size"] or 0 for image in images),
        "uncompressed_bytes": sum(image["size"] or 0 for image in images),
    }
    assert {key: found[key] for key in expected} == expected
    if not expected:
        assert (summary["fatbins"], summary["bundles"], summary["images"]) == (0, 0, 0)


@pytest.mark.parametrize("row", [row for row in ROWS if "fatbins" in row["expected"]], ids=name)
def test_reserialised_byte_for_byte(row: dict[str, object]) -> None:
    with inspected(str(corpus_path(row))) as node:
        for payload in node.payloads:
            if payload.kind != "fatbin":
                continue
            data = node.source.read(payload.offset, payload.size)
            parsed = parse_layout(FATBIN, data)
            assert build_layout(FATBIN, parsed) == data
            assert sum(1 for entry in parsed.entries if entry.header.kind != 0x100) == len(payload.images)
