"""`python -m tests.images` builds what is missing; without the means it says so in one line.

Without a base image (for which there must be a network, once) our tests are left out, too; our own
build must not fail. With CI=true a missing thing is a failure.
"""

import os
import signal
import sys

from tests.images.build import DOWNLOADER, OPERATOR, image_of_these_sources, why_not
from tests.images.tools import BuildError, NoBaseError


def main() -> int:
    # A build that is asked to end removes what it has begun.
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    if trouble := why_not():
        return left_out(trouble)
    try:
        for recipe in (OPERATOR, DOWNLOADER):
            folder = image_of_these_sources(say, recipe)
            say(f"{folder / 'image.tar'} holds {recipe.name}.")
    except NoBaseError as error:
        return left_out(str(error))
    except BuildError as error:
        print(f"tests/images: the image cannot be built: {error}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def say(what: str) -> None:
    print(f"tests/images: {what}", flush=True)


def left_out(why: str) -> int:
    print(f"tests/images: tests of the image are left out: {why}.", file=sys.stderr)
    return 1 if os.environ.get("CI") == "true" else 0


if __name__ == "__main__":
    sys.exit(main())
