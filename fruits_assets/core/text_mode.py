"""Recognises images that were transferred as text: line ends changed, or characters encoded again.

FTP in ASCII mode, `git` with `autocrlf`, editors and databases do that. What is left cannot be
repaired: which bytes were changed is not known. It is only said where chance is ruled out.
"""

from collections.abc import Callable, Mapping

from fruits_assets.core.rejection import RejectedImage

_CHANGES: tuple[Callable[[bytes], bytes], ...] = (
    lambda data: data.replace(b"\r\n", b"\n"),
    lambda data: data.replace(b"\r\n", b"\r"),
    lambda data: data.replace(b"\n", b"\r\n"),
    lambda data: data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"),
    lambda data: data.replace(b"\n", b"\r"),
    lambda data: data.replace(b"\r", b"\n"),
    lambda data: bytes(byte & 0x7F for byte in data),
    lambda data: data.decode("latin-1").encode(),
    lambda data: data.decode("cp1252", "replace").encode(),
    lambda data: data.decode("utf-8", "replace").encode(),
    lambda data: data.decode("utf-8", "ignore").encode(),
    lambda data: data.decode("ascii", "replace").encode("ascii", "replace"),
)
_BINARY = 4
"""Bytes of a signature, at least, for its changed form to be proof."""
_BREAKS, _ONE_IN = 8, 256
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}".encode()


def once(head: bytes, signatures: Mapping[bytes, str]) -> str | None:
    """The format whose signature, changed as text is, a file begins with.

    Args:
        head: The first bytes of the file.
        signatures: Format by signature.
    """
    for signature, name in signatures.items():
        for change in _CHANGES:
            changed = change(signature)
            proof = changed != signature and len(changed) >= _BINARY and not changed.isalnum()
            if proof and head.startswith(changed):
                return name
    return None


def was_text(data: bytes) -> bool:
    """Whether the bytes of a file are those that a transfer as text leaves, and no others would be.

    In compressed data each byte is as frequent as any other.
    """
    if _REPLACEMENT in data[:4096] and _is_utf8(data):
        return True
    feeds, returns = data.count(b"\n"), data.count(b"\r")
    pairs = data.count(b"\r\n")
    if feeds >= _BREAKS and pairs == feeds:  # each has got a carriage return
        return True
    likely = 2 * _BREAKS * _ONE_IN
    if len(data) >= likely and (feeds == 0 or returns == 0) and max(feeds, returns) >= _BREAKS:
        return True  # one was replaced by the other
    # Each carriage return before a line feed is gone.
    return pairs == 0 and min(feeds, returns) > 2 * _BREAKS * _ONE_IN


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def transferred_as_text(image_format: str) -> RejectedImage:
    """An image whose bytes were changed on the way here."""
    return RejectedImage(
        "corrupt",
        f"The {image_format} was transferred as text, which changed its bytes; transfer it again "
        "in binary mode.",
    )
