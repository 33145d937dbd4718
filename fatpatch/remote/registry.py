"""Images of a container registry: manifests by tag or digest, blobs by ranges, with the token that the registry asks for.

Sources: OCI distribution specification 1.1; "Token Authentication" of the CNCF distribution project; docker's config.json.
"""

from __future__ import annotations

import hashlib
import os
import re
from typing import Final
from urllib.parse import quote, urlencode

from fatpatch.base.errors import FormatError, InputError, UnauthorizedError
from fatpatch.base.json_text import json_object
from fatpatch.base.limits import Fetched, Remote
from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.remote.inputs import REGISTRY as PREFIX
from fatpatch.remote.opening import open_input

_HOST = lazy_pattern(r"(?:localhost|(?=[^/]*[.:])[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(?::\d{1,5})?\Z")
_NAME = lazy_pattern(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*\Z")
_TAG = lazy_pattern(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
_DIGEST = lazy_pattern(r"sha(?:256:[0-9a-f]{64}|512:[0-9a-f]{128})\Z")
_PARAMETER = lazy_pattern(r'([a-z_]+)="([^"]{0,2000})"', re.IGNORECASE)
_LOCAL = lazy_pattern(r"(?:localhost|127\.\d+\.\d+\.\d+|\[::1\])(?::\d+)?\Z")
_ACCEPT: Final = ", ".join((
    "application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.docker.distribution.manifest.v2+json",
))  # fmt: skip
_MAX_MANIFEST: Final = 8 << 20
_MAX_TOKEN: Final = 64 << 10
_HINT: Final = "write for example oci:registry.example/team/app:1.0 or ...@sha256:..."


class ImageName(NamedTuple):
    """What ``oci:HOST/NAME:TAG`` or ``oci:HOST/NAME@sha256:...`` says; ``reference`` is the tag or the digest."""

    host: str
    name: str
    reference: str


def image_name(text: str) -> ImageName:
    """The parts of an image's name. InputError for one without a host: no registry is guessed."""
    host, _, rest = text.removeprefix(PREFIX).partition("/")
    name, at, digest = rest.partition("@")
    last = name.rpartition("/")[2]
    if ":" in last:
        name, _, tag = name.rpartition(":")
    else:
        tag = "latest"
    if not _HOST.match(host):
        raise InputError("names no registry", locator=text[:200], hint=_HINT)
    if not _NAME.match(name) or not (_DIGEST.match(digest) if at else _TAG.match(tag)):
        raise InputError("is not a name of an image", locator=text[:200], hint=_HINT)
    return ImageName(host, name, digest if at else tag)


class Registry:
    """One image of one registry. Only the host that was named is asked, the server of tokens that it names, and where it redirects to.

    By https, or where the options say so, and on this machine, by http. InputError for what the registry does not give.
    """

    def __init__(self, text: str, options: Remote) -> None:
        self.image = image_name(text)
        scheme = "http" if options.plain_http or _LOCAL.match(self.image.host) else "https"
        self._base = f"{scheme}://{self.image.host}/v2/{self.image.name}"
        self._options = options
        self._token: str | None = None
        self._open: list[Source] = []
        self._manifests: dict[str, bytes] = {}
        self._fetched: list[Fetched] = []
        data = self._manifest(self.image.reference)
        self.digest = self.image.reference if ":" in self.image.reference else f"sha256:{hashlib.sha256(data).hexdigest()}"
        """Of the manifest or index that the name leads to."""
        self._manifests[self.digest] = data

    def manifest(self, digest: str) -> Source:
        """The bytes of a manifest or an index."""
        if digest not in self._manifests:
            self._manifests[digest] = self._manifest(digest)
        return Source.of(self._manifests[digest])

    def blob(self, digest: str) -> Source:
        """The bytes of a layer or a configuration, fetched as they are read."""
        source = self._opened(f"{self._base}/blobs/{quote(digest, safe=':')}", None)
        self._open.append(source)
        return source

    def close(self) -> None:
        """Close the connections, and report what was fetched of all blobs together."""
        for source in self._open:
            source.close()
        if self._fetched and self._options.report is not None:
            sums = [sum(column) for column in zip(*((each.fetched, each.size, each.requests) for each in self._fetched), strict=True)]
            self._options.report(Fetched(self._shown, *sums))
            self._fetched.clear()

    def _manifest(self, reference: str) -> bytes:
        source = self._opened(f"{self._base}/manifests/{quote(reference, safe=':')}", _ACCEPT)
        try:
            if source.size > _MAX_MANIFEST:
                raise FormatError(f"its manifest has {source.size:#x} bytes", locator=self._shown)
            return source.read(0, source.size)
        finally:
            source.close()

    @property
    def _shown(self) -> str:
        return f"{PREFIX}{self.image.host}/{self.image.name}"

    def _opened(self, url: str, accept: str | None) -> Source:
        """The answer at a URL; where the registry wants a token, or the one at hand has expired, one is asked for, once."""
        report = None if accept else self._fetched.append
        for again in (True, False):
            bearer = None if self._token is None else f"Bearer {self._token}"
            try:
                return open_input(url, self._options._replace(accept=accept, authorization=bearer, report=report))
            except UnauthorizedError as error:
                if not again:
                    message, hint = "the registry does not let this user read it", "docker login, or ask its owner"
                    raise InputError(message, locator=self._shown, hint=hint) from error
                self._token = self._asked(error.challenge)
        raise AssertionError

    def _asked(self, challenge: str) -> str:
        """A token for reading this image, from the server that the challenge names."""
        kind, _, rest = challenge.partition(" ")
        said = {key.lower(): value for key, value in _PARAMETER.findall(rest)}
        realm = said.get("realm", "")
        credentials = _credentials(self.image.host)
        if kind.lower() != "bearer" or not realm.startswith(("https://", self._base.split("//")[0] + "//")):
            what = f"asks for {kind[:20]!r} credentials, which are not sent" if kind.lower() != "bearer" else "names no server of tokens"
            raise InputError(f"the registry {what}", locator=self._shown, hint="copy the image with skopeo copy ... docker-archive:app.tar")
        query = {"scope": said.get("scope") or f"repository:{self.image.name}:pull"}
        query |= {"service": said["service"]} if "service" in said else {}
        url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
        basic = None if credentials is None else f"Basic {credentials}"
        source = open_input(url, self._options._replace(authorization=basic, report=None, most=_MAX_TOKEN))
        try:
            document = json_object(source.read(0, source.size))
        finally:
            source.close()
        token = document.get("token") or document.get("access_token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise InputError("the server of tokens gives none", locator=self._shown)
        return token


def _credentials(host: str) -> str | None:
    """What ``docker login`` wrote down for a host (base64 of user:password); credential helpers are not run."""
    folder = os.environ.get("DOCKER_CONFIG") or os.path.join(os.path.expanduser("~"), ".docker")
    try:
        with open(os.path.join(folder, "config.json"), "rb") as stream:
            auths = json_object(stream.read(1 << 20)).get("auths")
    except OSError:
        return None
    each = auths.get(host) if isinstance(auths, dict) else None
    found = each.get("auth") if isinstance(each, dict) else None
    return found if isinstance(found, str) and re.fullmatch(r"[A-Za-z0-9+/=]{1,4000}", found) else None
