"""JSON and NDJSON of ``inspect``: one document, or one line a file, written piece by piece. Schema: inspect-1.schema.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fatpatch import __version__
from fatpatch.base.errors import FatpatchError
from fatpatch.gpucode.rows import AmdUsage, KernelFacts, own_shared
from fatpatch.model.container_image import ContainerImage
from fatpatch.model.kinds import ContainerKind
from fatpatch.model.target import Target
from fatpatch.model.tree import Diagnostic, ImageEntry, Inventory, ModelFacts, Node, Payload
from fatpatch.scan.coverage import TreeSummary
from fatpatch.scan.kernel_folders import KernelFolder, kernel_folders, root_of
from fatpatch.scan.survey import ImageSurvey, complaint_of

SCHEMA = "fatpatch.inspect/1"
Lookup = Callable[[ImageEntry], ImageSurvey | None]
"""What the survey found of an image; images are asked for in document order, each once."""


def file_json(node: Node, lookup: Lookup, demangle: Callable[[str], str | None], summary: Callable[[], TreeSummary]) -> Iterator[str]:
    """The pieces of one file's object; ``summary`` is asked for after the last image."""
    yield from _node(node, lookup, demangle, summary, is_member=False)


def document(files: Iterator[Iterator[str]], errors: Sequence[FatpatchError]) -> Iterator[str]:
    """The whole document around the objects of its files; ``errors`` are those met by then, of files that could not be read."""
    yield f'{{"schema": {json.dumps(SCHEMA)}, "tool_version": {json.dumps(__version__)}, "files": ['
    for index, pieces in enumerate(files):
        yield ",\n" if index else "\n"
        yield from pieces
    yield '\n], "errors": ' + json.dumps([_error(error) for error in errors]) + "}\n"


def lines(files: Iterator[Iterator[str]]) -> Iterator[str]:
    """One line a file, each with the schema's name in it."""
    for pieces in files:
        yield f'{{"schema": {json.dumps(SCHEMA)}, "tool_version": {json.dumps(__version__)}, "file": '
        yield from pieces
        yield "}\n"


def _node(
    node: Node, lookup: Lookup, demangle: Callable[[str], str | None], summary: Callable[[], TreeSummary] | None, *, is_member: bool
) -> Iterator[str]:
    head: dict[str, Any] = {
        "path": node.path,
        "size": node.size,
        "container": node.container,
        "detail": node.detail,
        "packing": node.packing,
        "locator": node.locator,
    }
    if is_member:
        head["stored_at"] = node.stored_at
    if not is_member and node.container == ContainerKind.PE and node.source is not None:
        from fatpatch.binfmt.pe.authenticode import signature_of

        signature = signature_of(node.source)
        head["signature"] = None if signature is None else {"signers": signature.signers, "digest_holds": signature.holds}
    if node.facts is not None:
        head["model"] = _facts(node.facts)
    if node.image is not None:
        head["image"] = _container_image(node.image)
    if node.slimmed is not None:
        head["slimmed"] = node.slimmed.document()
    if node.origin is not None:
        head["origin"] = {**node.origin._asdict(), "also": list(node.origin.also)}
    if node.kernel_files and (folders := kernel_folders(node.kernel_files, root_of(node.detail))):
        head["kernel_folders"] = [_kernel_folder(each) for each in folders]
    head["inventory"] = None if node.inventory is None else [_inventory(each) for each in node.inventory]
    head["member_count"] = node.member_count
    yield json.dumps(head)[:-1] + ', "members": ['
    for index, member in enumerate(node.members):
        yield ", " if index else ""
        yield from _node(member, lookup, demangle, None, is_member=True)
    yield '], "payloads": ['
    extra: list[Diagnostic] = []
    for index, payload in enumerate(node.payloads):
        yield ", " if index else ""
        yield from _payload(payload, lookup, demangle, extra)
    yield "]"
    if summary is not None:
        yield ', "summary": ' + json.dumps(_summary(summary()))
    yield ', "diagnostics": ' + json.dumps([_diagnostic(item) for item in (*node.diagnostics, *extra)]) + "}"


def _payload(payload: Payload, lookup: Lookup, demangle: Callable[[str], str | None], extra: list[Diagnostic]) -> Iterator[str]:
    head = {
        "locator": payload.locator,
        "vendor": payload.vendor,
        "kind": payload.kind,
        "section": payload.section,
        "offset": payload.offset,
        "size": payload.size,
        "format": payload.format,
        "version": payload.version,
        "wrapper": None if payload.wrapper is None else {"version": payload.wrapper.version, "offset": payload.wrapper.offset},
        "found_by": list(payload.found_by),
        "fillers": {"entries": payload.fillers, "size": payload.filler_size},
    }
    yield json.dumps(head)[:-1] + ', "images": ['
    for index, image in enumerate(payload.images):
        finding = lookup(image)
        if finding is not None and (complaint := complaint_of(image, finding)) is not None:
            extra.append(complaint)
        yield (", " if index else "") + json.dumps(_image(image, finding, demangle))
    yield "]}"


def _image(image: ImageEntry, finding: ImageSurvey | None, demangle: Callable[[str], str | None]) -> dict[str, Any]:
    known = finding or ImageSurvey(None)
    result: dict[str, Any] = {
        "locator": image.locator,
        "kind": image.kind,
        "target": image.target,
        "code_version": image.code_version or known.code_version,
        "compression": image.compression,
        "stored_size": image.stored_size,
        "size": image.size,
        "offset": image.offset,
        "unpacked_offset": None if image.within is None else image.within[0],
        "flags": image.flags,
        "kind_code": image.kind_code,
        "identifier": image.identifier,
        "options": image.options,
        "producer": known.producer or image.producer,
        "sha256": known.sha256,
        "kernels": None if known.rows is None else [_kernel(row, image, demangle) for row in known.rows],
    }
    return result


def _kernel(row: KernelFacts, image: ImageEntry, demangle: Callable[[str], str | None]) -> dict[str, Any]:
    banks = row.constant_banks
    return {
        "name": row.name,
        "demangled": demangle(row.name),
        "registers": row.registers,
        "shared_bytes": row.shared_bytes,
        "driver_shared_bytes": own_shared(row.shared_bytes, Target(image.target).sm),
        "local_bytes": row.local_bytes,
        "constant_bytes": None if banks is None else dict(banks).get(0, 0),
        "constant_banks": None if banks is None else {str(bank): size for bank, size in banks},
        "max_threads": row.max_threads,
        "params": None if row.parameters is None else [{"offset": offset, "size": size} for offset, size in row.parameters],
        "code_size": row.code_size,
        "amd": None if row.amd is None else _amd(row.amd),
    }


def _amd(usage: AmdUsage) -> dict[str, Any]:
    return {
        "agprs": usage.agprs,
        "sgprs": usage.sgprs,
        "vgpr_spills": usage.vgpr_spills,
        "sgpr_spills": usage.sgpr_spills,
        "kernarg_size": usage.kernarg_size,
        "kernarg_align": usage.kernarg_align,
        "wavefront_size": usage.wavefront,
        "dynamic_stack": usage.dynamic_stack,
        "arguments": [argument._asdict() for argument in usage.arguments],
    }


def _facts(facts: ModelFacts) -> dict[str, Any]:
    return {
        "version": facts.version,
        "architecture": facts.architecture,
        "file_type": facts.file_type,
        "name": facts.name,
        "tensors": facts.tensors,
        "tensor_types": dict(facts.tensor_types),
    }


def _container_image(image: ContainerImage) -> dict[str, Any]:
    return {
        "name": image.name,
        "platform": image.platform,
        "layers": [layer._asdict() for layer in image.layers],
        "deleted": image.deleted,
        "deleted_bytes": image.deleted_bytes,
        "packages": [{"name": each.name, "version": each.version, "root": each.root} for each in image.packages],
    }


def _kernel_folder(folder: KernelFolder) -> dict[str, Any]:
    targets = [{"target": each.target, "files": each.files, "missing": list(each.missing)} for each in folder.targets]
    return {"library": folder.library, "folder": folder.folder, "targets": targets}


def _inventory(found: Inventory) -> dict[str, Any]:
    return {
        "kind": found.kind,
        "count": found.pieces,
        "size": found.size,
        "versions": list(found.versions),
        "entry_points": dict(found.entry_points),
    }


def _summary(summary: TreeSummary) -> dict[str, Any]:
    return {
        "fatbins": summary.fatbins,
        "bundles": summary.bundles,
        "images": summary.images,
        "images_by_target": dict(summary.images_by_target),
        "kernels": summary.kernels,
    }


def _error(error: FatpatchError) -> dict[str, Any]:
    return {"locator": error.locator, "offset": error.offset, "field": error.field, "message": error.message, "exit_code": error.exit_code}


def _diagnostic(item: Diagnostic) -> dict[str, Any]:
    return {"locator": item.locator, "level": item.level, "offset": item.offset, "field": item.field, "message": item.message}
