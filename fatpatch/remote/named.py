"""Files in object stores and elsewhere, by fsspec (the extra [remote])."""

from __future__ import annotations

from typing import Any

from fatpatch.base.errors import InputError, LimitError, ToolError
from fatpatch.base.limits import Remote
from fatpatch.remote.address import shown_address


class NamedFile:
    """A file at an address whose scheme is fsspec's."""

    def __init__(self, url: str, options: Remote) -> None:
        try:
            import fsspec
        except ImportError as error:
            hint = "pip install 'fatpatch[remote]'"
            raise ToolError("needs fsspec, which is not installed", locator=shown_address(url), hint=hint) from error
        self.requests = 1
        self.fetched = 0
        self._shown = shown_address(url)
        if options.public_only:
            hint = "leave out --public-only, or give an address with https://"
            raise InputError("where a store is cannot be checked beforehand", locator=self._shown, hint=hint)
        try:
            self._system, self._path = fsspec.core.url_to_fs(url)
            about: dict[str, Any] = self._system.info(self._path)
        except Exception as error:
            raise self._error(error) from error
        if about.get("type") == "directory" or not isinstance(about.get("size"), int):
            raise InputError("is not a file of known size", locator=self._shown)
        self.size: int = about["size"]
        if self.size > options.most:
            message = f"is larger than the {options.most:#x} bytes that may be fetched"
            raise LimitError(message, locator=self._shown, hint="raise it with --max-download if you trust the server")
        tag = about.get("ETag") or about.get("etag") or about.get("LastModified")
        self.tag = None if tag is None else str(tag)

    def read(self, start: int, end: int) -> bytes:
        """The bytes [start, end)."""
        self.requests += 1
        try:
            data: bytes = self._system.cat_file(self._path, start=start, end=end)
        except Exception as error:
            raise self._error(error) from error
        self.fetched += len(data)
        if len(data) != end - start:
            message = f"the store gave {len(data):#x} of the bytes [{start:#x}, {end:#x})"
            raise InputError(message, locator=self._shown, hint="run again; the file may have changed")
        return data

    def close(self) -> None:
        """Nothing is held."""

    def _error(self, error: Exception) -> InputError:
        """Whatever a file system of fsspec raises, without the address, in which there may be a secret."""
        if isinstance(error, ImportError):
            module = error.name or "a module"
            hint = f"pip install {error.name}" if error.name else " ".join(str(error).split())[:200]
            return InputError(f"needs {module}, which is not installed", locator=self._shown, hint=hint)
        words = " ".join(f"{type(error).__name__}: {shown_address(str(error))}".split())[:300]
        return InputError(f"cannot be read: {words}", locator=self._shown, hint="look at the address and its credentials")
