"""A model's Markdown in which nothing can run."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from lazynb.notebook.markdown import plain_markdown, safe_markdown

OURS = re.compile(r'</?pre>|</?code>|<code class="language-[\w+#.-]*">')
RISKY = re.compile(r"<[A-Za-z/!?]|!\[")


def render(text):
    return MarkdownIt("commonmark", {"html": True}).render(text)


@pytest.mark.parametrize(
    "text",
    [
        "# Title\n\n- a\n- b\n\n| a | b |\n|---|---|\n| 1 | 2 |",
        "$a < b$ and $$\\frac{1}{2}$$ and a < 3 > 2",
        "```python\nprint('x')\n```\n\n`code` [link](https://example.org/a_(b)) [local](#there) [file](docs/x.md)",
        "wow! [1] and a <- b",
    ],
)
def test_harmless_text_stays_as_it_is(text):
    assert safe_markdown(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "<script>x</script>",
        "<img src=x onerror=alert(1)>",
        "![a](http://evil.test/x.png)",
        "![a][b]\n\n[b]: http://evil.test",
        "\\<img src=x> \\![a](b)",
        "$ ` $ <img src=x> `",
        "```html\n<b>x</b>\n```",
        "~~~ `\n$$\n<img src=x>\n~~~",
        "<!-- x --> <?php ?> </div>",
    ],
)
def test_no_tag_and_no_image_is_left(text):
    assert not RISKY.search(OURS.sub("", safe_markdown(text)))


@given(st.text(alphabet="<>!`~[]()ab/?$\\\n \t&;:#\"'=-"))
def test_whatever_the_text_no_tag_and_no_image_is_left(text):
    assert not RISKY.search(OURS.sub("", safe_markdown(text)))


@pytest.mark.parametrize(
    "target",
    [
        "javascript:x",
        "JaVaScRiPt:x",
        "java&#115;cript:x",
        "data:text/html,x",
        "vbscript:x",
        "&#106;avascript:x",
    ],
)
def test_a_link_that_could_run_is_shown_as_text(target):
    assert "href" not in render(safe_markdown(f"[x]({target})"))
    assert "href" not in render(safe_markdown(f"[x][r]\n\n[r]: {target}"))


@pytest.mark.parametrize(
    "code",
    ["<b>bold</b>", "#include <iostream>\n\nint main() { return a[0] * b; }", "![x](y) $a_b$ `t`"],
)
def test_risky_code_shows_the_same_text(code):
    shown = render(safe_markdown(f"```cpp\n{code}\n```"))
    assert "".join(MarkdownText.of(shown)).strip() == code


class MarkdownText:
    @staticmethod
    def of(html):
        from html import unescape

        yield unescape(re.sub(r"<[^>]*>", "", html))


@pytest.mark.parametrize("piece", ["`", "<", "![", "```\n", "[a](", "`a`` "])
def test_the_time_is_linear(piece):
    def seconds(count):
        begin = time.perf_counter()
        safe_markdown(piece * count)
        return time.perf_counter() - begin

    short, long = min(seconds(5000) for _ in range(3)), min(seconds(20000) for _ in range(3))
    assert long < 10 * short + 0.01


def test_plain_text_cannot_be_markup():
    assert (
        render(plain_markdown("<b> *x* [a](b) `c`\nd")).strip()
        == "<p>&lt;b&gt; *x* [a](b) `c` d</p>"
    )
