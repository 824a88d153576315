"""Why a file of the source is not a photo."""

from typing import Literal, get_args

Reason = Literal[
    "empty",
    "not_an_image",
    "unsupported_format",
    "truncated",
    "corrupt",
    "too_large",
    "unreadable",
]
REASONS: tuple[Reason, ...] = get_args(Reason)


class RejectedImage(Exception):  # noqa: N818 - the outcome of an examination, not a failure of it
    """A file that is not an acceptable photo.

    Attributes:
        reason: One of `REASONS`, to count by.
        detail: One sentence for people: what was found and what to do about it.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason: Reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def truncated(found: str) -> RejectedImage:
    """A file that ends before its image does."""
    return RejectedImage(
        "truncated", f"The file is cut short ({found}); copy or download it again."
    )


def corrupt(found: str) -> RejectedImage:
    """A file whose contents contradict its own format."""
    return RejectedImage(
        "corrupt", f"The file is damaged ({found}); replace it with an intact copy."
    )


def unsupported(found: str, *, by: str = "") -> RejectedImage:
    """An image that this pipeline does not read.

    Args:
        found: The format, with its article.
        by: Programs that convert it.
    """
    how = f", for example with {by}" if by else ""
    return RejectedImage(
        "unsupported_format", f"The file is {found}; convert it to JPEG or PNG{how}."
    )
