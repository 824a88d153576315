"""Pictures as files."""

import io

from PIL import Image


def saved(image: Image.Image, image_format: str, **options: object) -> bytes:
    """A picture as a file of a format, by Pillow's name, saved with Pillow's options."""
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()
