"""Who signed a PE file, and whether the signed digest is still that of the file (Microsoft: Windows Authenticode PE signature format).

Whether the certificate is trusted is not asked: that depends on the system and the day.
"""

from __future__ import annotations

import re
from typing import Any

from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.binfmt.pe.tables import SECURITY, PeTables, signature_at

LARGEST = 256 << 20
"""Bytes of a file whose digest is still checked: LIEF holds it in memory."""
_COMMON_NAME = lazy_pattern(r"(?:^|, )CN=((?:\\.|[^,\\])+)")


class PeSignature(NamedTuple):
    """``signers``: the names in the certificates of those who signed; ``holds``: whether the digest is right, None when not checked."""

    signers: tuple[str, ...]
    holds: bool | None

    def words(self) -> str:
        """Both in words."""
        digest = {True: "the digest holds", False: "the digest does NOT hold", None: f"digest not checked above {LARGEST >> 20} MiB"}
        return f"signed by {', '.join(self.signers) or 'an unknown signer'}; {digest[self.holds]}"


def is_signed(source: Source) -> bool:
    """Whether the header of a PE file names an attribute certificate table."""
    return signature_at(source) is not None and any(PeTables(source).directory(SECURITY))


def signature_of(source: Source) -> PeSignature | None:
    """The signature of a PE file; None when it has none, or one that cannot be read."""
    if not is_signed(source):
        return None
    if source.size > LARGEST:
        return PeSignature((), None)
    import lief

    lief.logging.disable()
    binary: Any = lief.PE.parse(source.read(0, source.size))
    if binary is None or not binary.has_signatures:
        return PeSignature((), False)
    signers = dict.fromkeys(
        _name(signer.cert) for signature in binary.signatures for signer in signature.signers if signer.cert is not None
    )
    answer = binary.verify_signature(lief.PE.Signature.VERIFICATION_CHECKS.HASH_ONLY)
    return PeSignature(tuple(signers), answer == lief.PE.Signature.VERIFICATION_FLAGS.OK)


def _name(certificate: Any) -> str:
    """The common name of a certificate's subject, else all of the subject."""
    subject = str(certificate.subject)
    common = _COMMON_NAME.search(subject)
    return re.sub(r"\\(.)", r"\1", common[1]) if common else subject
