"""Execute a notebook headless and show its cells and their output in the terminal while they run.

python notebooks/run.py NOTEBOOK [--save]
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

BOLD, DIM, RESET = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")


class TerminalClient(NotebookClient):  # type: ignore[misc]
    """A notebook client that prints what a page would show."""

    shown: dict[str, str]

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        """Print what is new in a message, then handle it as usual."""
        content = msg["content"]
        if msg["msg_type"] == "stream":
            self._write(content["text"])
        elif msg["msg_type"] in ("display_data", "update_display_data", "execute_result"):
            text = content["data"].get("text/plain", "")
            self._update(content.get("transient", {}).get("display_id", ""), text)
        elif msg["msg_type"] == "clear_output":
            self.shown.clear()
        return super().process_message(msg, cell, cell_index)

    def _update(self, display_id: str, text: str) -> None:
        """Print how a display grew; a display that was replaced is printed anew."""
        before = self.shown.get(display_id, "") if display_id else ""
        self._write(text[len(before) :] if text.startswith(before) and before else f"\n{text}")
        if display_id:
            self.shown[display_id] = text

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def main() -> int:
    """Run the notebook; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--save", action="store_true", help="write the outputs into the notebook")
    args = parser.parse_args()
    notebook = nbformat.read(args.notebook, as_version=4)
    os.environ["LAZYLLM_PLAIN"] = "true"  # no page, no widgets
    kernel = {"metadata": {"path": str(args.notebook.parent)}}
    client = TerminalClient(notebook, timeout=600, kernel_name="python3", resources=kernel)
    client.shown = {}
    client.on_cell_execute = lambda cell, cell_index: print(  # noqa: ARG005
        f"\n{BOLD}In [{cell_index}]:{RESET} {DIM}{cell.source}{RESET}"
        if cell.cell_type == "code"
        else ""
    )
    try:
        client.execute()
    except CellExecutionError as error:
        print(f"\n{error.ename}: {error.evalue}", file=sys.stderr)
        return 1
    finally:
        print()
        if args.save:
            nbformat.write(notebook, args.notebook)
    return 0


if __name__ == "__main__":
    sys.exit(main())
