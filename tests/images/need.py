"""What becomes of tests that need the image where it cannot be built."""

import functools
import os

import pytest

from tests.images.build import DOWNLOADER, Recipe, image_of_these_sources, why_not
from tests.images.image import Image
from tests.images.tools import NoBaseError


def need_image(recipe: Recipe = DOWNLOADER) -> Image:
    """Skips the test without the means; where everything must run, that is a failure."""
    found = _image(recipe)
    if isinstance(found, Image):
        return found
    if os.environ.get("CI") == "true":
        pytest.fail(found)
    pytest.skip(found)


@functools.cache
def _image(recipe: Recipe) -> Image | str:
    """The image, or what is missing for it."""
    if trouble := why_not():
        return trouble
    try:
        return Image(image_of_these_sources(recipe=recipe))
    except NoBaseError as error:
        return str(error)
