"""The help, which the documentation is made from."""

from pathlib import Path

from lazynb.notebook.commands import COMMANDS
from lazynb.notebook.help import markdown, text


def test_the_documentation_is_what_the_help_says():
    page = Path(__file__).parents[2] / "docs" / "magics.md"
    assert page.read_text() == markdown(), "run: python -m lazynb.notebook.help > docs/magics.md"


def test_every_command_has_help():
    for name in [*COMMANDS, "ask", ""]:
        assert text(name)
