"""The picture of a flow: its steps, and what the last run did.

In the page the shapes are SVG, and the labels are lines of text that a style sheet puts in their
place. Where a front end takes style sheets and SVG away (a notebook that is not trusted), those
lines remain and read as a tree. Colours and fonts are those of the page. Elsewhere (GitHub, an
exported document) the same picture is one SVG image.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from lazynb.flow.layout import Block, Label, layout
from lazynb.flow.outline import outline, text

if TYPE_CHECKING:
    from lazynb.flow.base import Flow

_STYLE = """
.lazynb-flow{--ink:var(--jp-ui-font-color1,var(--vscode-foreground,#333));
--soft:var(--jp-ui-font-color2,var(--vscode-descriptionForeground,#757575));
--card:var(--jp-layout-color2,var(--vscode-editorWidget-background,#f3f3f3));
--line:var(--jp-border-color1,#b0b0b0);--bar:var(--jp-brand-color1,#1976d2);
--bad:var(--jp-error-color1,#d32f2f);--ui:var(--jp-ui-font-family,system-ui,sans-serif);
--code:var(--jp-code-font-family,monospace)}
.lazynb-flow .card{fill:var(--card)}.lazynb-flow .bar{fill:var(--bar)}
.lazynb-flow .link{stroke:var(--line);fill:none}
.lazynb-flow .label{color:var(--soft);fill:var(--soft);font:11px/16px var(--ui)}
.lazynb-flow .name{color:var(--ink);fill:var(--ink);font:600 12px/16px var(--ui)}
.lazynb-flow .value{font:10.5px/16px var(--code)}
.lazynb-flow .bad{color:var(--bad);fill:var(--bad)}
.lazynb-flow .idle{opacity:.55}
"""
_PAGE_STYLE = """
pre.lazynb-flow{position:relative;white-space:nowrap!important;margin:0!important;
padding:0!important;border:0;background:none;font-size:0!important;line-height:0!important}
.lazynb-flow svg{display:block}
.lazynb-flow .label{position:absolute;width:max-content;white-space:nowrap}
.lazynb-flow .middle{transform:translateX(-50%)}.lazynb-flow .end{transform:translateX(-100%)}
"""


def mimebundle(flow: Flow) -> dict[str, str]:
    """Return the representations of a flow for the notebook."""
    root = outline(flow)
    block, tree = layout(root), _clean(text(root))
    return {
        "text/plain": tree,
        "text/html": _page(block, tree),
        "image/svg+xml": _image(block, tree),
    }


def _page(block: Block, tree: str) -> str:
    lines = "".join(map(_span, block.labels))
    shapes = _svg(block, block.shapes, 'aria-hidden="true"')
    font = "font:11px var(--jp-ui-font-family,system-ui,sans-serif)"
    summary = f'<summary style="color:var(--jp-ui-font-color2,#757575);{font}">as text</summary>'
    return (
        f"<style>{_STYLE}{_PAGE_STYLE}</style>"
        f'<div style="overflow-x:auto;overflow-y:hidden">'
        f'<pre class="lazynb-flow">{shapes}{lines}</pre>'
        f"</div><details>{summary}<pre>{escape(tree)}</pre></details>"
    )


def _image(block: Block, tree: str) -> str:
    inside = f"<style>{_STYLE}</style>{block.shapes}{''.join(map(_text, block.labels))}"
    label = escape(tree).replace("\n", "&#10;")
    return _svg(block, inside, f'class="lazynb-flow" role="img" aria-label="{label}"')


def _svg(block: Block, inside: str, attributes: str) -> str:
    width, height = block.width + 2, block.height + 2
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {attributes} width="{width:g}" '
        f'height="{height:g}" viewBox="0 0 {width:g} {height:g}">{inside}</svg>'
    )


def _span(label: Label) -> str:
    begin = " " if label.depth is None else "\n" + "    " * label.depth
    style = f"left:{label.x:g}px;top:{label.y - 12:g}px"
    return (
        f'{begin}<span class="label {label.style} {label.anchor}" style="{style}" '
        f'title="{escape(_clean(label.title))}">{escape(_clean(label.text))}</span>'
    )


def _text(label: Label) -> str:
    return (
        f'<text x="{label.x:g}" y="{label.y:g}" class="label {label.style}" '
        f'text-anchor="{label.anchor}">{escape(_clean(label.text))}</text>'
    )


def _clean(content: str) -> str:
    """Replace what XML cannot hold, or a terminal would obey; line ends stay."""
    return "".join(
        char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}"
        for char in content
    )
