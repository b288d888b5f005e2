"""A model's text as Markdown in which nothing can run and nothing is requested.

Front ends differ in how they read Markdown: JupyterLab takes the math out with regular expressions before its parser
sees the text, others do not. So nothing here depends on where a parser believes that code or math begins: a
tag or an image is never left raw, not even in what looks like code. Text that has neither stays as it is.

- `<` before anything that could begin a tag becomes `&lt;`, and an image becomes a link to it.
- Code that has such a sequence is written as `<code>` with entities, which mean the same whatever a parser makes of
  them. Other code is left to the front end, which highlights it.
- A link keeps its target where that is http, https, mailto or relative; otherwise it is shown as text.
"""

from __future__ import annotations

import re
from collections import defaultdict
from html import unescape

_FENCE = re.compile(
    r"^(?P<indent>[ \t>]*)(?P<fence>`{3,}|~{3,})(?P<info>[^`\n]*)\n"
    r"(?P<code>(?:.*\n)*?)"
    r"(?:[ \t>]*(?P=fence)[`~]*[ \t]*(?:\n|\Z)|\Z)",
    re.MULTILINE,
)
_TICKS = re.compile(r"(`+)")
_RISKY = re.compile(r"<[A-Za-z/!?]|!\[")
_TAG = re.compile(r"\\?<(?=[A-Za-z/!?])")
_IMAGE = re.compile(r"\\?!\[([^\[\]\n]*)\](?=[(\[])")
_TARGET = re.compile(r"\](?P<mark>\(|:)(?=\s{0,9}(?P<target>[^\s)]{1,300}))")
_MARKUP = re.compile(r"[&<>`*_\[\](){}$\\!|~#^:]")
LONGEST = 300  # characters of a target that are looked at
_SCHEMES = ("http", "https", "mailto")


def safe_markdown(text: str) -> str:
    """Return Markdown that shows a text and does nothing else.

    Parameters
    ----------
    text : str
        Markdown as a model wrote it.
    """
    parts = []
    end = 0
    for fence in _FENCE.finditer(text):
        parts += [_prose(text[end : fence.start()]), _block(fence)]
        end = fence.end()
    return "".join([*parts, _prose(text[end:])])


def _block(fence: re.Match[str]) -> str:
    if not _RISKY.search(fence[0]):
        return fence[0]
    indent = fence["indent"]
    lines = [line.removeprefix(indent) for line in fence["code"].removesuffix("\n").split("\n")]
    code = f"\n{indent}".join(map(_entities, lines))
    language = re.match(r"\s*([\w+#.-]*)", fence["info"])
    name = f' class="language-{language[1]}"' if language and language[1] else ""
    return f"\n{indent}<pre><code{name}>{code}</code></pre>\n\n"


def _prose(text: str) -> str:
    """Return running text; a paragraph holds all of a code span, so each is taken alone."""
    return "\n\n".join(_paragraph(part) if _suspect(part) else part for part in text.split("\n\n"))


def _suspect(text: str) -> bool:
    return "<" in text or "![" in text or "](" in text or "]:" in text


def _paragraph(text: str) -> str:
    pieces = _TICKS.split(text)  # text, ticks, text, ticks, …, text
    runs: dict[str, list[int]] = defaultdict(list)
    for index in range(len(pieces) - 2, 0, -2):
        runs[pieces[index]].append(index)  # the next one is the last
    parts = [_text(pieces[0])]
    index = 1
    while index < len(pieces):
        ticks = pieces[index]
        later = runs[ticks]
        while later and later[-1] <= index:
            later.pop()
        if later:
            close = later[-1]
            parts.append(_span(ticks, "".join(pieces[index + 1 : close])))
            index = close
        else:
            parts.append(ticks)
        parts.append(_text(pieces[index + 1]))
        index += 2
    return "".join(parts)


def _span(ticks: str, code: str) -> str:
    if not _RISKY.search(code):
        return f"{ticks}{code}{ticks}"
    if code.strip() and code[0] == code[-1] == " ":
        code = code[1:-1]
    return f"<code>{_entities(code)}</code>"


def _text(text: str) -> str:
    text = _TAG.sub("&lt;", text)
    text = _IMAGE.sub(r"[image: \1]", text).replace("![", "&#33;[")
    return _TARGET.sub(_link, text)


def _link(match: re.Match[str]) -> str:
    target = unescape(match["target"]).lstrip("<")
    scheme, colon, _ = re.split(r"[/?#]", target, maxsplit=1)[0].partition(":")
    short = len(match["target"]) < LONGEST or "/" in target
    if (not colon and short) or scheme.lower() in _SCHEMES:
        return match[0]
    return f"]&#{ord(match['mark'])};"


def _entities(code: str) -> str:
    return _MARKUP.sub(lambda sign: f"&#{ord(sign[0])};", code)


def plain_markdown(text: str) -> str:
    """Return Markdown that shows a text, character by character, on one line."""
    return _entities(" ".join(text.split()))
