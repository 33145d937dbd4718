"""Addresses that aarch64 code makes in several steps: an anchor outside a payload, or half of a constant, and what leads on from there.

GCC counts from one anchor to all objects of a section (-fsection-anchors). What the instructions put into registers is followed in the
order of the words, up to a call or a jump (Arm Architecture Reference Manual; C4.1, encodings).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_BEFORE, _BEHIND = 16, 40
"""Instructions before and behind one that are followed."""
Wanted = Callable[[int, bool], bool]
"""Whether a value is a reference; ``constant``: it was put together of constants alone."""


def led_on(words: Sequence[int], index: int, address: int, wanted: Wanted) -> int | None:
    """Where the instructions around the one at ``index`` lead; ``address`` is that of the first word."""
    state = _ArmRegisters(wanted)
    for at in range(max(index - _BEFORE, 0), min(index + _BEHIND, len(words))):
        led = state.after(words[at], address + 4 * at)
        if led is not None:
            return led
        if words[at] >> 26 & 0x1F == 5 or words[at] & 0xFE000000 == 0xD6000000:  # b, bl, br, blr, ret
            if at > index:
                return None
            state = _ArmRegisters(wanted)
    return None


class _ArmRegisters:
    """What is known of the contents of registers, from one instruction to the next: (value, whether of constants alone)."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._known: dict[int, tuple[int, bool]] = {}

    def after(self, word: int, place: int) -> int | None:
        """Carry out an instruction; where it leads."""
        target, base = word & 31, word >> 5 & 31
        led, result = self._memory(word), self._result(word, place)
        if led is None and result is not None and self._wanted(*result):
            led = result[0]
        if not _stores(word):
            self._known.pop(target, None)
        if word & 0x3B200400 == 0x38000400 or word & 0x3A800000 == 0x28800000:  # the base is written, too
            self._known.pop(base, None)
        if result is not None and target != 31:
            self._known[target] = result
        return led

    def _result(self, word: int, place: int) -> tuple[int, bool] | None:
        """What an instruction puts into its target register."""
        base, second = self._known.get(word >> 5 & 31), self._known.get(word >> 16 & 31)
        sign = -1 if word >> 30 & 1 else 1
        result = None
        if word & 0x1F000000 == 0x10000000:  # adr, adrp
            distance = _signed((word >> 29 & 3) | (word >> 5 & 0x7FFFF) << 2, 21)
            result = ((place & ~0xFFF) + (distance << 12) if word >> 31 else place + distance), False
            return result if not self._wanted(*result) else None  # a reference of one step is found elsewhere
        if word & 0x1F800000 == 0x11000000 and base is not None:  # add, sub of a constant
            result = base[0] + sign * ((word >> 10 & 0xFFF) << 12 * (word >> 22 & 1)), False
        elif word & 0x1F200000 == 0x0B000000 and base is not None and second is not None:  # of a register
            result = base[0] + sign * (second[0] << (word >> 10 & 0x3F)), False
        elif word & 0x7FE0FFE0 == 0x2A0003E0:  # mov
            result = second
        elif word & 0x7F800000 == 0x52800000:  # movz
            result = (word >> 5 & 0xFFFF) << 16 * (word >> 21 & 3), True
        elif word & 0x7F800000 == 0x72800000:  # movk
            old, shift = self._known.get(word & 31), 16 * (word >> 21 & 3)
            result = None if old is None else (old[0] & ~(0xFFFF << shift) | (word >> 5 & 0xFFFF) << shift, old[1])
        return result

    def _memory(self, word: int) -> int | None:
        """The address of an operand in memory, where that is wanted."""
        base = self._known.get(word >> 5 & 31)
        if base is None or word & 0x0A000000 != 0x08000000:
            return None
        vector, size = word >> 26 & 1, word >> 30
        scale = 4 if vector and word >> 23 & 1 and not size else size
        if word & 0x3B000000 == 0x39000000:  # unsigned offset
            offset = (word >> 10 & 0xFFF) << scale
        elif word & 0x3B200000 == 0x38000000:  # signed offset, also written back
            offset = 0 if word & 0xC00 == 0x400 else _signed(word >> 12 & 0x1FF, 9)
        elif word & 0x3B200C00 == 0x38200800:  # a register; what is not known of it counts from the base
            second = self._known.get(word >> 16 & 31)
            offset = 0 if second is None else second[0] << (scale if word >> 12 & 1 else 0)
        elif word & 0x3A000000 == 0x28000000:  # a pair
            offset = 0 if word & 0x1800000 == 0x800000 else _signed(word >> 15 & 0x7F, 7) << (2 + size if vector else 2 + (word >> 31))
        else:
            return None
        led = base[0] + offset
        return led if self._wanted(led, False) else None


def _stores(word: int) -> bool:
    """Whether an instruction is a store or a branch, whose bits 4 to 0 name no register that it writes."""
    if word & 0x0A000000 == 0x08000000:
        return not word >> 22 & 1
    return word & 0x1C000000 == 0x14000000


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value
