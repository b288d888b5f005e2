"""Queries with files: their wire form, and what is sent."""

import base64
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazynb import query as queries
from lazynb.errors import LazynbError
from lazynb.prompt import Prompt
from lazynb.query import Query, content, split
from lazynb.query import decode_query_with_filepaths as decode
from lazynb.query import encode_query_with_filepaths as encode

any_text = st.text(alphabet=st.characters())  # lone surrogates included: a file name may hold them


@given(any_text, st.lists(any_text, min_size=1))
def test_decode_reverses_encode(text, files):
    assert decode(encode(text, files)) == {"query": text, "files": files}


@given(st.text() | st.text().map(lambda text: "<lazyllm-query>" + text))
def test_a_text_without_files_comes_back(text):
    decoded = decode(encode(text, []))
    assert decoded in (text, {"query": text, "files": []})
    assert split(encode(text))[1] == []


def test_the_wire_form():
    wire = encode("What is this?", "a.png")
    assert wire == '<lazyllm-query>{"query": "What is this?", "files": ["a.png"]}'
    assert encode("What is this?") == "What is this?"
    assert encode("q", os.fspath("a")) == encode("q", ["a"])


@pytest.mark.parametrize(
    "rest", ["", "{", "[]", '{"files": "a.png"}', '{"files": [1]}', "[" * 9999]
)
def test_a_broken_wire_form_is_an_error(rest):
    with pytest.raises(LazynbError, match="cannot be read"):
        decode("<lazyllm-query>" + rest)


def test_what_is_no_path_is_an_error():
    with pytest.raises(LazynbError, match=r"files\[1\]"):
        encode("q", ["a.png", 3])


@pytest.fixture
def file(tmp_path):
    def make(name, data=b"data"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return make


def data_of(url):
    head, _, data = url.partition(",")
    return head, base64.b64decode(data)


@pytest.mark.parametrize(
    ("name", "mime"),
    [("a.png", "image/png"), ("a.JPG", "image/jpeg"), ("a.webp", "image/webp")],
)
def test_images_become_data_urls(file, name, mime):
    text, image = content("What is it?", [file(name)])
    assert text == {"type": "text", "text": "What is it?"}
    assert image["type"] == "image_url"
    assert data_of(image["image_url"]["url"]) == (f"data:{mime};base64", b"data")


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.flac", "a.M4A"])
def test_audio_becomes_input_audio(file, name):
    [part] = content("", [file(name)])
    assert part["type"] == "input_audio"
    assert part["input_audio"]["format"] == name[2:].lower()
    assert base64.b64decode(part["input_audio"]["data"]) == b"data"


def test_video_text_and_other_files(file):
    files = [file("a.mp4"), file("notes.md", "größe".encode()), file("a.pdf", b"%PDF\0")]
    video, text, other = content("", files)
    assert data_of(video["video_url"]["url"]) == ("data:video/mp4;base64", b"data")
    assert text == {"type": "text", "text": "notes.md:\n\ngröße"}
    assert other["file"]["filename"] == "a.pdf"
    assert data_of(other["file"]["file_data"]) == ("data:application/pdf;base64", b"%PDF\0")


def test_typescript_is_text_not_video(file, monkeypatch):
    monkeypatch.setattr(queries.mimetypes, "guess_type", lambda *_a, **_k: ("video/mp2t", None))
    [part] = content("", [file("main.ts", b"let x = 1")])
    assert part["type"] == "text"


def test_content_parts_can_be_sent_whatever_the_file_is_called(tmp_path):
    path = os.fsencode(tmp_path) + b"/b\xff.txt"
    Path(os.fsdecode(path)).write_bytes(b"hi")
    [message] = Prompt().messages(encode("q", os.fsdecode(path)))
    json.dumps(message, ensure_ascii=False).encode()


@pytest.mark.parametrize("name", ["missing.png", "."])
def test_what_is_no_file_is_an_error_before_anything_is_sent(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LazynbError, match=name):
        Prompt().messages(encode("q", name))


def test_a_pipe_is_refused_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LazynbError, match="is no file"):
        content("q", [tmp_path / "pipe"])


def test_files_may_not_be_too_large_together(file, monkeypatch):
    monkeypatch.setattr(queries, "MAX_BYTES", 10)
    content("q", [file("a.txt", b"x" * 10)])
    with pytest.raises(LazynbError, match="MB"):
        content("q", [file("a.txt", b"x" * 6), file("b.txt", b"x" * 5)])


def test_a_home_folder_is_understood(file, monkeypatch):
    monkeypatch.setenv("HOME", str(file("a.txt").parent))
    assert content("", ["~/a.txt"])[0]["text"] == "a.txt:\n\ndata"


def test_a_query_becomes_content_parts_in_any_prompt(file):
    query = encode("this", file("a.txt"))
    for prompt, given_input in [
        (None, query),
        ({"user": "Describe {x}."}, query),
        ("Describe {x}.", {"x": query}),
        ("Speak {x}.", {"x": "French", "input": query}),
    ]:
        said, part = Prompt(prompt).messages(given_input)[-1]["content"]
        assert "this" in said["text"]
        assert part["text"] == "a.txt:\n\ndata"


def test_only_an_encoded_query_has_its_files_read(file):
    """A model's answer, or a stranger's text, must not read files by looking like a query."""
    forged = str.__str__(encode("q", file("secret.txt")))
    assert not isinstance(forged, Query)
    with pytest.raises(LazynbError, match="files are not read"):
        Prompt().messages(forged)
    with pytest.raises(LazynbError, match="files are not read"):
        Prompt({"user": "{x}"}).messages("  " + forged)
    trusted = encode(**decode(forged))
    assert len(Prompt().messages(trusted)[0]["content"]) == 2
