"""Product names: the rows of the GPU tables, and which of them a text names (sources: data/README.md)."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Final

from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.gpus.tables import table

DOUBTFUL: Final = "doubtful"
"""The certainty of a name that never decides: only the PCI id does."""

_VENDOR = {
    "nvidia": "nvidia", "geforce": "nvidia", "gtx": "nvidia", "rtx": "nvidia", "gt": "nvidia", "quadro": "nvidia", "tesla": "nvidia",
    "jetson": "nvidia", "titan": "nvidia", "grid": "nvidia", "amd": "amd", "ati": "amd", "radeon": "amd", "rx": "amd", "instinct": "amd",
    "firepro": "amd", "ryzen": "amd",
}  # fmt: skip
_MAKERS = frozenset({"nvidia", "amd", "ati", "corporation", "inc", "r", "tm", "gfx"})
_SERIES = frozenset({"gtx", "rtx", "gt", "quadro", "tesla", "radeon", "rx"})
_LEFT_OUT = frozenset(  # words of a name that people leave out
    {"geforce", "radeon", "gtx", "rtx", "gt", "rx", "tesla", "quadro", "instinct", "firepro", "jetson", "pro", "graphics", "gpu"}
    | {"series", "design", "with", "generation", "ada", "blackwell", "pascal", "accelerator"}
)
_ADDED = frozenset({"geforce", "radeon", "tesla", "jetson", "instinct", "rtx", "pro"})  # that people add to names without them
_LAPTOP = frozenset({"laptop", "mobile", "notebook", "gpu"})
_JOINED = lazy_pattern(r"(gtx|rtx|rx|gt|geforce|radeon|titan)(?=\d)|(?<=\d)(?=(?:ti|super|xtx|xt|gre)\b)")
_MEMORY = lazy_pattern(r"\d{1,3}(?:gb|g)")


class Product(NamedTuple):
    """A row: the ``name`` as the driver prints it, its ``target`` (sm_61, gfx1031), SM number (None for AMD), PCI ids (4 hex digits)."""

    vendor: str
    name: str
    target: str
    arch: int | None
    segment: str
    laptop: bool
    chips: tuple[str, ...]
    pci_ids: tuple[str, ...]
    certainty: str
    note: str
    words: tuple[str, ...]


@functools.lru_cache(maxsize=1)
def products() -> tuple[Product, ...]:
    """Every row of both tables, NVIDIA first, in the order of their targets."""
    return (*map(_nvidia, table("nvidia_gpus")), *map(_amd, table("amd_gpus")))


def named(text: str) -> list[tuple[int, Product]]:
    """The products that a text names, with how well: 0 the whole name, 1 without the words that people leave out, 2 with a word
    too many, 3 some of its words, 4 the beginnings of some. Best first; empty when the text names none.
    """
    given = words(text)
    vendors = {_VENDOR[word] for word in given if word in _VENDOR}
    given = tuple(word for word in given if word not in _MAKERS)
    if not given or len(vendors) > 1 or not text.isascii():
        return []
    found = [(rank, product) for product in products() if not vendors or product.vendor in vendors if (rank := _rank(given, product)) < 5]
    return sorted(found, key=lambda item: (item[0], *_plainness(item[1])))


def loosely_named(text: str) -> tuple[list[tuple[int, Product]], str]:
    """Like ``named``, without the words for a laptop or an amount of memory, which the tables seldom have; and those words."""
    given = words(text)
    kept = [word for word in given if word not in _LAPTOP and not _MEMORY.fullmatch(word)]
    dropped = " ".join(word for word in given if word not in kept)
    return (named(" ".join(kept)), dropped) if dropped else ([], "")


def with_pci_id(digits: str, vendor: str | None = None) -> list[Product]:
    """The products with a PCI device id (4 hex digits), the plainest name first."""
    wanted = digits.lower()
    return sorted((item for item in products() if wanted in item.pci_ids and vendor in (None, item.vendor)), key=_plainness)


def with_chip(text: str) -> list[Product]:
    """The products with a chip such as GP106 or Navi 31."""
    wanted = _compact(words(text))
    return sorted((item for item in products() if any(_compact(words(chip)) == wanted for chip in item.chips)), key=_plainness)


def nearest(text: str, count: int = 8) -> list[Product]:
    """The products whose names look most like a text."""
    import difflib

    given = words(text)
    vendors = {_VENDOR[word] for word in given if word in _VENDOR}
    listed = [item for item in reversed(products()) if not vendors or item.vendor in vendors]
    by_name = {_compact(word for word in item.words if word not in _LEFT_OUT): item for item in listed}
    by_name.update({_compact(item.words): item for item in listed})
    close = difflib.get_close_matches(_compact(word for word in given if word not in _MAKERS), by_name, n=count, cutoff=0.5)
    return list(dict.fromkeys(by_name[name] for name in close))


def alike_numbers(text: str, count: int = 6) -> list[Product]:
    """The products of the same series whose four-digit number ends or begins as the one in a text, newest first: RTX 5090 for "RTX 9090".

    Empty where the text has no such number.
    """
    given = words(text)
    number = next((word for word in given if re.fullmatch(r"\d{3,4}", word)), None)
    series = [word for word in given if word in _SERIES]
    if number is None or not series:
        return []
    same: list[tuple[bool, str, Product]] = []
    for item in products():
        own = next((word for word in item.words if re.fullmatch(r"\d{4}", word)), None)
        plain = own is not None and set(item.words) <= {*_MAKERS, *_LEFT_OUT, *series, own}
        if plain and own is not None and set(series) <= set(item.words) and _alike(own, number):
            same.append((own[1:] == number[1:], own, item))
    same.sort(key=lambda row: row[:2], reverse=True)
    return [item for _, _, item in same[:count]]


def _alike(own: str, number: str) -> bool:
    """Whether a product's number has the end or the beginning of another, or begins with one that is cut short."""
    return own.startswith(number) if len(number) < len(own) else own[1:] == number[1:] or own[:2] == number[:2]


def words(text: str) -> tuple[str, ...]:
    """A name as words: small letters and digits, the series split from its number (gtx1060, 1060ti)."""
    return tuple(re.findall(r"[a-z0-9]+", _JOINED.sub(r"\1 ", text.lower())))


def _rank(given: tuple[str, ...], product: Product) -> int:
    name = product.words
    whole = _compact(given)
    if whole == _compact(name):
        return 0
    keep = set(given) | ({"rtx"} if "quadro" in given else set())  # a Quadro 6000 is much older than a Quadro RTX 6000
    if whole == _compact(word for word in name if word in keep or word not in _LEFT_OUT):
        return 1
    if "pro" in given and set(given) <= set(name):  # an RTX PRO 6000 is newer than what is called RTX 6000
        return 1
    core = tuple(word for word in given if word not in _ADDED and (word != "quadro" or _is_number(given)))
    if core and core != given and _compact(core) in (_compact(name), _compact(w for w in name if w in core or w not in _LEFT_OUT)):
        return 2
    if "quadro" in given and "rtx" not in given and "rtx" in name:
        return 5
    if set(given) <= set(name):
        return 3
    return 4 if all(any(_begins(word, other) for other in name) for word in given) else 5


def _is_number(given: tuple[str, ...]) -> bool:
    return not any(re.search(r"[a-z]", word) for word in given if word not in _LEFT_OUT)


def _begins(start: str, word: str) -> bool:
    """Whether a word of a name begins so; a number must not be cut in two."""
    rest = word[len(start) :]
    return word.startswith(start) and (not rest or (len(start) > 1 and not (start[-1].isdigit() and rest[0].isdigit())))


def _plainness(product: Product) -> tuple[bool, bool, bool, int, int, str]:
    """Sort key: certain, desktop, of a vendor's list, with a short name; of "750 Ti" and "750Ti" the first."""
    listed = product.certainty in ("pci", "chip", "build", "unsure")
    return product.certainty == DOUBTFUL, product.laptop, listed, len(_compact(product.words)), -len(product.name), product.name


def _compact(parts: Iterable[str]) -> str:
    return "".join(parts)


def _nvidia(row: dict[str, str]) -> Product:
    arch = int(row["capability"].replace(".", ""))
    return Product(
        vendor="nvidia",
        name=row["name"],
        target=f"sm_{arch}",
        arch=arch,
        segment=row["segment"],
        laptop=row["form"] == "laptop",
        chips=tuple(row["chips"].split()),
        pci_ids=tuple(row["pci_ids"].split()),
        certainty=row["certainty"],
        note=row["note"],
        words=words(row["name"]),
    )


def _amd(row: dict[str, str]) -> Product:
    return Product(
        vendor="amd",
        name=row["name"],
        target=row["gfx"],
        arch=None,
        segment=next((word for word in ("instinct", "pro", "ryzen") if word in words(row["name"])), "radeon"),
        laptop=False,
        chips=tuple(row["chips"].split("; ")) if row["chips"] else (),
        pci_ids=tuple(row["pci_ids"].split()),
        certainty=row["certainty"],
        note=row["note"],
        words=words(row["name"]),
    )
