"""What an answer leaves in the saved notebook: Markdown and plain text, and nothing that needs a kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazynb.notebook.markdown import plain_markdown, safe_markdown

if TYPE_CHECKING:
    from lazynb.streaming import Answer

_ENDED = {"cancelled": "stopped", "failed": "failed"}
RED = "#d32f2f"


def summary(answer: Answer) -> str:
    """Return the line below an answer: model, tokens, rate and time."""
    parts = [answer.model or answer.service]
    if answer.tokens:
        parts.append(f"{answer.tokens} token{'s' if answer.tokens != 1 else ''}")
    if answer.tokens_per_second:
        parts.append(f"{answer.tokens_per_second:.0f}/s")
    if answer.done:
        parts.append(f"{answer.seconds:.1f} s")
    if answer.finish_reason == "length":
        parts.append("cut at max_tokens")
    if answer.status in _ENDED:
        parts.append(_ENDED[answer.status])
    elif answer.done and not answer.size:
        parts.append("empty answer")
    return " · ".join(parts)


def settled(answer: Answer) -> dict[str, str]:
    """Return the MIME bundle of an answer as it stands."""
    markdown, plain = [], []
    if answer.reasoning:
        thought = safe_markdown(answer.reasoning).strip()
        markdown.append(f"<details><summary>Reasoning</summary>\n\n{thought}\n\n</details>")
    if answer.text:
        markdown.append(safe_markdown(answer.text).rstrip())
        plain.append(answer.text.rstrip())
    line = summary(answer)
    markdown.append(f"<sub>{plain_markdown(line)}</sub>")
    plain.append(f"[{line}]")
    if answer.error is not None:
        cause, _, hint = str(answer.error).partition("\n")
        text = plain_markdown(f"{cause}. {hint}" if hint else cause)
        markdown.append(f'<span style="color:{RED}">{text}</span>')
        plain.append(str(answer.error))
    return {"text/markdown": "\n\n".join(markdown), "text/plain": "\n".join(plain)}
