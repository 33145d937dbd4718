"""Files in object stores and elsewhere, by fsspec (the extra [remote])."""

from __future__ import annotations

from typing import Any

from fatpatch.errors import InputError, ToolError
from fatpatch.remote.address import shown_address


class NamedFile:
    """A file at an address whose scheme is fsspec's."""

    def __init__(self, url: str) -> None:
        try:
            import fsspec
        except ImportError as error:
            hint = "pip install 'fatpatch[remote]'"
            raise ToolError("needs fsspec, which is not installed", locator=shown_address(url), hint=hint) from error
        self.requests = 1
        self.fetched = 0
        self._shown = shown_address(url)
        try:
            self._system, self._path = fsspec.core.url_to_fs(url)
            about: dict[str, Any] = self._system.info(self._path)
        except Exception as error:
            raise self._error(error) from error
        if about.get("type") == "directory" or not isinstance(about.get("size"), int):
            raise InputError("is no file whose size is known", locator=self._shown)
        self.size: int = about["size"]
        self._tag = about.get("ETag") or about.get("etag") or about.get("LastModified")

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
            message = f"needs {error.name}, which is not installed"
            return InputError(message, locator=self._shown, hint=f"pip install {error.name}")
        words = f"{type(error).__name__}: {shown_address(str(error))}"[:300]
        return InputError(f"cannot be read: {words}", locator=self._shown, hint="look at the address and its credentials")
