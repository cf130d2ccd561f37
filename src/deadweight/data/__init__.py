"""Source strings to images, text and rows of classification tasks; the embedded defaults."""

from deadweight.data.images import IMAGE_SOURCES, ImageData, ImageSet, as_tensors, load_images
from deadweight.data.text import TextData, load_text

__all__ = [
    "IMAGE_SOURCES",
    "ImageData",
    "ImageSet",
    "TextData",
    "as_tensors",
    "load_images",
    "load_text",
]
