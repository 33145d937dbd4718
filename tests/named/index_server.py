"""A package index for tests: files by their paths, with ranges; pages by PEP 503 or PEP 691; an npm registry; what was sent is counted."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from remote.server import Handler, serving


class Shop:
    """``files``: path -> bytes. ``sent``: bytes of each path so far; ``pages``: path -> text that is answered whole."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.pages: dict[str, str] = {}
        self.sent: dict[str, int] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.before: Callable[[Handler], bool] | None = None
        self.url = ""

    @property
    def total(self) -> int:
        return sum(self.sent.values())

    def answer(self, handler: Handler, number: int) -> bool:
        self.seen.append((handler.path, {key.lower(): value for key, value in handler.headers.items()}))
        if self.before is not None and self.before(handler):
            return True
        if handler.path in self.pages:
            data = self.pages[handler.path].replace("URL", self.url).encode()
            kind = "application/vnd.pypi.simple.v1+json" if data.startswith(b"{") else "text/html"
            handler.head(200, len(data), {"ETag": f'"{len(data)}"', "Content-Type": kind})
            handler.wfile.write(data)
            self.sent[handler.path] = self.sent.get(handler.path, 0) + len(data)
            return True
        data = self.files.get(handler.path)
        if data is None:
            handler.head(404, 0)
            return True
        start, end = 0, len(data)
        if "Range" in handler.headers:
            first, _, last = handler.headers["Range"].removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last) + 1, len(data))
            handler.head(206, end - start, {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}", "ETag": f'"{hash(data)}"'})
        else:
            handler.head(200, len(data))
        handler.wfile.write(data[start:end])
        self.sent[handler.path] = self.sent.get(handler.path, 0) + end - start
        return True

    def project(self, name: str, files: list[str], *, as_json: bool = True, **about: dict[str, object]) -> None:
        """The page of a project; ``about``: more of a file, by its name with _ for other characters."""
        if as_json:
            rows = [{"filename": file, "url": f"../../files/{file}", "hashes": {}, **about.get(file, {})} for file in files]
            self.pages[f"/simple/{name}/"] = json.dumps({"meta": {"api-version": "1.1"}, "name": name, "files": rows})
        else:
            self.pages[f"/simple/{name}/"] = "<!doctype html>" + "".join(
                f'<a href="../../files/{file}#sha256=0">{file}</a>' for file in files
            )

    def wheel(self, name: str, members: dict[str, bytes], *, packed: bool = False) -> None:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as wheel:
            for path, data in members.items():
                wheel.writestr(path, data)
        self.files[f"/files/{name}"] = stream.getvalue()

    def package(self, name: str, versions: dict[str, dict[str, bytes]], optional: dict[str, dict[str, str]] | None = None) -> None:
        """An npm package: version -> files of its tarball."""
        rows = {}
        for version, members in versions.items():
            stream = io.BytesIO()
            with tarfile.open(fileobj=stream, mode="w:gz") as tar:
                for path, data in members.items():
                    info = tarfile.TarInfo(f"package/{path}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
            path = f"/tarballs/{name.replace('/', '.')}-{version}.tgz"
            self.files[path] = stream.getvalue()
            rows[version] = {"dist": {"tarball": f"URL{path}"}, "optionalDependencies": (optional or {}).get(version, {})}
        self.pages[f"/{name.replace('/', '%2F')}"] = json.dumps({"name": name, "versions": rows})


@contextmanager
def index() -> Iterator[Shop]:
    shop = Shop()
    with serving(b"", shop.answer) as server:
        shop.url = server.url
        yield shop
