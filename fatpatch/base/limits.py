"""How much of a hostile input is followed: depth, counts, bytes."""

from __future__ import annotations

from collections.abc import Callable

from fatpatch.base.records import NamedTuple


class Fetched(NamedTuple):
    """What was fetched of a remote file: bytes of how many, in how many requests."""

    shown: str
    fetched: int
    size: int
    requests: int


class Remote(NamedTuple):
    """How files are read from servers. ``most`` bytes of one file; ``timeout`` seconds of silence, ``patience`` seconds until an
    answer must have begun and come in at ``slowest`` bytes a second. ``public_only``: no machine of a private network is asked;
    of ``attempts`` the last one's trouble is an error.
    ``report`` is told what was fetched when a file is closed. ``accept``: the media types that are asked for, None for any.
    ``authorization``: a header for the server that is named, and for none that it redirects to. ``plain_http``: registries of other
    machines too are asked by http. ``block``: in blocks of so many bytes a file is fetched, four of them first.
    """

    most: int = 16 << 30
    block: int = 16 << 10
    timeout: float = 15.0
    patience: float = 30.0
    slowest: int = 4096
    public_only: bool = False
    attempts: int = 5
    report: Callable[[Fetched], object] | None = None
    accept: str | None = None
    authorization: str | None = None
    plain_http: bool = False


class Limits(NamedTuple):
    """All in bytes or counts; the defaults let every real release through and stop every bomb known to us.

    A run may unpack ``ratio_free`` bytes and ``ratio`` times the size of its input, and never more than ``unpacked``. ``platform``: of
    the images of a container image that has several only this one is read, such as linux/arm64.
    """

    depth: int = 8
    members: int = 500_000
    unpacked: int = 64 << 30
    ratio: int = 100
    ratio_free: int = 64 << 20
    image: int = 512 << 20
    images: int = 100_000
    platform: str | None = None
    remote: Remote = Remote()
