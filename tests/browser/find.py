"""Find a Chromium: `python -m tests.browser.find` prints its path, or fails and says what to do."""

import os
import shutil
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str:
    """Return the path of a Chromium or a Chrome."""
    found = os.environ.get("LAZYNB_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        sys.exit("The browser tests need Chromium: run `make browser`, or set LAZYNB_CHROMIUM")
    return found


if __name__ == "__main__":
    print(find_chromium())
