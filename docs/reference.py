"""Write docs/api.md, the reference of the public names, from their docstrings: `python docs/reference.py`."""

import re
from pathlib import Path

import griffe
from griffe2md import render_object_docs

ROOT = Path(__file__).parents[1]
HEAD = """# API reference

Generated from the docstrings by `python docs/reference.py`. The magics are in [magics.md](magics.md).
"""
GROUPS = {
    "Models": [
        "TrainableModule",
        "Answer",
        "StreamCallHelper",
        "encode_query_with_filepaths",
        "decode_query_with_filepaths",
    ],
    "Flows": [
        "flow.Pipeline",
        "flow.Parallel",
        "flow.Diverter",
        "flow.Warp",
        "flow.Switch",
        "flow.Ifs",
        "flow.Loop",
        "flow.Graph",
        "bind",
    ],
    "Formatters": [
        "formatter.JsonFormatter",
        "formatter.YamlFormatter",
        "formatter.PythonFormatter",
        "formatter.StrFormatter",
        "formatter.FileFormatter",
    ],
    "Settings": ["config.Config"],
    "Errors": ["errors"],
}
LOOKS = {
    "docstring_style": "numpy",
    "docstring_section_style": "list",
    "filters": ["!^_[^_]", "!^__(?!call__$)"],
    "heading_level": 3,
    "inherited_members": False,
    "members_order": "source",
    "separate_signature": True,
    "show_category_heading": False,
    "show_if_no_docstring": False,
    "show_object_full_path": False,
    "show_root_full_path": False,
    "show_root_members_full_path": False,
    "show_signature_annotations": True,
    "summary": False,
}


def reference() -> str:
    """Return the reference as Markdown."""
    package = griffe.load(
        "lazynb", docstring_parser="numpy", resolve_aliases=True, search_paths=[ROOT]
    )
    parts = [HEAD]
    for title, names in GROUPS.items():
        parts.append(f"## {title}\n")
        parts += [_render(package[name]) for name in names]
    return "\n".join(parts)


def _render(thing: griffe.Object | griffe.Alias) -> str:
    target = thing.final_target if isinstance(thing, griffe.Alias) else thing
    return _plain(render_object_docs(target, LOOKS)).strip() + "\n"


def _plain(markdown: str) -> str:
    """Write the types as code, not as links to places that this page does not have."""
    unlinked = re.sub(r"\[([^][]*)\]\(#[^)]*\)", r"\1", markdown)
    return re.sub(r"<code>(.*?)</code>", r"`\1`", unlinked)


if __name__ == "__main__":
    (ROOT / "docs" / "api.md").write_text(reference(), encoding="utf-8")
