"""Names camera raw files: what the sensor saw, which each maker writes differently."""

from fruits_assets.core.rejection import RejectedImage, unsupported

_BY = "darktable, RawTherapee or the program of the camera's maker"
_SIGNATURES = {
    b"II\x1a\0\0\0HEAPCCDR": "Canon CRW",
    b"FUJIFILMCCD-RAW": "Fujifilm RAF",
    b"IIRO": "Olympus ORF",
    b"IIRS": "Olympus ORF",
    b"MMOR": "Olympus ORF",
    b"IIU\0": "Panasonic RW2",
    b"FOVb": "Sigma X3F",
    b"\0MRM": "Minolta MRW",
    b"IIII": "Phase One IIQ",
    b"MMMM": "Phase One IIQ",
    b"ARRI": "ARRI ARI",
}
_MAKERS = {
    b"canon": "Canon CR2",
    b"nikon": "Nikon NEF",
    b"sony": "Sony ARW",
    b"pentax": "Pentax PEF",
    b"ricoh": "Pentax PEF",
    b"samsung": "Samsung SRW",
    b"panasonic": "Panasonic RW2",
    b"leica": "Leica RWL",
    b"hasselblad": "Hasselblad 3FR",
    b"phase one": "Phase One IIQ",
    b"leaf": "Leaf MOS",
    b"mamiya": "Mamiya MEF",
    b"kodak": "Kodak DCR",
    b"eastman kodak": "Kodak DCR",
    b"epson": "Epson ERF",
    b"seiko epson": "Epson ERF",
    b"om digital": "Olympus ORF",
    b"olympus": "Olympus ORF",
    b"fujifilm": "Fujifilm RAF",
    b"gopro": "GoPro GPR",
}


def camera_raw(make: bytes, *, dng: bool) -> RejectedImage:
    """A raw file that is a TIFF.

    Args:
        make: The maker of the camera, as its tag says.
        dng: Whether it says that it is a digital negative of Adobe.
    """
    maker = make.strip(b"\0 ").lower()
    name = next((name for start, name in _MAKERS.items() if maker.startswith(start)), "")
    kind = " (DNG)" if dng else f" ({name})" if name else ""
    return unsupported(f"a camera raw file{kind}, of which only a preview could be read", by=_BY)


def named_raw(head: bytes) -> RejectedImage | None:
    """A raw file of a format of its maker's own, by its first bytes."""
    if head[4:8] == b"ftyp" and head[8:12] == b"crx ":
        return unsupported("a camera raw file (Canon CR3)", by=_BY)
    for signature, name in _SIGNATURES.items():
        if head.startswith(signature):
            return unsupported(f"a camera raw file ({name})", by=_BY)
    return None
