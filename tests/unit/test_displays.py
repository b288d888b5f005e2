"""What embeddings and rankings show in a cell, and that they are plain lists everywhere else."""

import base64
import copy
import json
import math
import pickle
import re
import struct
import time
import zlib
from xml.etree import ElementTree as ET

import msgspec
import pytest
from bs4 import BeautifulSoup
from IPython.core.formatters import DisplayFormatter
from IPython.lib.pretty import pretty

from lazynb.vectors import Embedding, Embeddings, Ranking, Weights

HARM = '<script>alert(1)</script>\x1b[31m\x00\ud800 & "quoted"'  # fmt: skip
ONE = Embedding([0.6, -0.8, 0.0])
SEVERAL = Embeddings([[1.0, 0.0], [3.0, 4.0], [0.0, 2.0]], ["east", "between", "north"])
RANKS = Ranking([(1, 0.9), (0, 0.3)], "What?", ["first", {"text": "second"}])
SPARSE = Weights([(7, 0.2), (9, 0.5)], ["of", "Paris"])
ALL = pytest.mark.parametrize(
    "value", [ONE, SEVERAL, RANKS, SPARSE], ids=["one", "several", "ranks", "sparse"]
)


def plain(value):
    return dict(value) if isinstance(value, dict) else list(value)


def shown(value):
    bundle, _ = DisplayFormatter().format(value)
    return bundle


def images(html):
    return [tag["src"].split(",", 1) for tag in BeautifulSoup(html, "html.parser").find_all("img")]


def svg(html):
    """The first image, read by a strict parser."""
    kind, data = images(html)[0]
    assert kind == "data:image/svg+xml;base64"
    return ET.fromstring(base64.b64decode(data))


def words(root):
    return [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]


def pixels(data):
    """The shades of a PNG with a palette: a list of lines."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    found, at = {}, 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length)[0] == zlib.crc32(kind + body)
        found[kind] = body
        at += length + 12
    width, height = struct.unpack_from(">II", found[b"IHDR"])
    lines = zlib.decompress(found[b"IDAT"])
    assert len(lines) == height * (width + 1)
    return [lines[y * (width + 1) + 1 : (y + 1) * (width + 1)] for y in range(height)]


# They are plain.


@ALL
def test_it_prints_compares_and_travels_as_the_plain_one(value):
    same = plain(value)
    assert value == same
    assert isinstance(value, type(same))
    assert repr(value) == str(value) == repr(same)
    assert msgspec.json.encode(value) == msgspec.json.encode(same)
    assert json.dumps(value) == json.dumps(same)


@ALL
def test_what_is_made_of_it_is_plain(value):
    for made in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert made == value
        assert type(made) is type(plain(value))
    assert b"lazynb" not in pickle.dumps(value)
    if isinstance(value, list):
        assert type(value[:2]) is type(value + []) is list  # noqa: RUF005


def test_arrays_are_made_of_them():
    numpy = pytest.importorskip("numpy")
    assert numpy.array(ONE).tolist() == ONE
    assert numpy.array(SEVERAL).shape == (3, 2)


def test_the_vectors_inside_of_several_are_lists_of_floats():
    vectors = Embeddings([Embedding([1.0]), Embedding([2.0])], ["a", "b"])
    assert b"lazynb" not in pickle.dumps(vectors)
    assert type(vectors[0][0]) is float


# What is shown.


def test_an_embedding_shows_its_size_and_norm_and_a_heat_map():
    bundle = shown(Embedding([0.6, -0.8] + [0.0] * 382))
    assert bundle["text/plain"] == "embedding of 384 numbers, norm 1.00: [0.6, -0.8, 0, 0, 0, …]"
    ((kind, data),) = images(bundle["text/html"])
    assert kind == "data:image/png;base64"
    lines = pixels(base64.b64decode(data))
    assert (len(lines[0]), len(lines)) == (512, 48)
    first, second, third = (lines[0][x] for x in (4, 12, 20))
    assert second < first
    assert first > third == lines[-1][-1]  # blue, orange, white
    text = BeautifulSoup(bundle["text/html"], "html.parser").text
    assert text == "embedding of 384 numbers, norm 1.00, from -0.8 to 0.6"


def test_a_few_large_numbers_do_not_hide_the_others():
    vector = Embedding([0.1, -0.1] * 191 + [50.0, -50.0])
    lines = pixels(base64.b64decode(images(shown(vector)["text/html"])[0][1]))
    assert lines[0][4] == lines[-1][-12] == 254  # as strong as any


def test_several_show_how_similar_they_are():
    bundle = shown(SEVERAL)
    assert bundle["text/plain"].splitlines() == [
        "3 embeddings of 2 numbers, cosine similarity:",
        "east      1.00   0.60   0.00",
        "between   0.60   1.00   0.80",
        "north     0.00   0.80   1.00",
    ]
    text = words(svg(bundle["text/html"]))
    assert [word for word in text if "." not in word] == [
        "east 1",
        "1",
        "between 2",
        "2",
        "north 3",
        "3",
    ]
    assert [float(word) for word in text if "." in word] == [1, 0.6, 0, 0.6, 1, 0.8, 0, 0.8, 1]
    assert "cosine similarity from 0.00 (white) to 1 (blue)" in bundle["text/html"]


@pytest.mark.parametrize(
    ("count", "numbers", "labels"), [(12, True, True), (13, False, True), (41, False, False)]
)
def test_numbers_and_labels_stand_where_there_is_room(count, numbers, labels):
    vectors = [[math.cos(i), math.sin(i)] for i in range(count)]
    text = words(svg(shown(Embeddings(vectors, [f"text {i}" for i in range(count)]))["text/html"]))
    assert ("1.00" in text) is numbers
    assert ("text 3 4" in text) is labels


def test_more_than_200_are_not_compared_and_it_says_so():
    many = Embeddings([[math.cos(i), math.sin(i)] * 192 for i in range(5000)], ["a text"] * 5000)
    begun = time.process_time()
    bundle = shown(many)
    assert time.process_time() - begun < 3
    assert "5000 embeddings of 384 numbers" in bundle["text/plain"]
    assert "the first 200 of them" in bundle["text/html"]
    assert len(bundle["text/html"]) < 300_000


def test_nothing_is_computed_before_it_is_shown(monkeypatch):
    monkeypatch.setattr("lazynb.vectors.display.similarities", None)
    vectors = Embeddings([[1.0], [2.0]], ["a", "b"])
    assert repr(vectors) == "[[1.0], [2.0]]"
    with pytest.raises(TypeError):
        vectors._repr_mimebundle_()


def test_a_ranking_shows_its_documents_with_scores_and_bars():
    bundle = shown(RANKS)
    assert bundle["text/plain"].splitlines() == [
        "2 documents ranked for: What?",
        "  0.900    1  second",
        "  0.300    0  first",
    ]
    page = BeautifulSoup(bundle["text/html"], "html.parser")
    rows = [[cell.text for cell in row.find_all("td")] for row in page.find_all("tr")]
    assert rows == [[], ["0.900", "", "1", "second"], ["0.300", "", "0", "first"]]
    assert "ranked for: What?" in page.text
    assert lengths(bundle["text/html"]) == [108, 36]  # of 120 pixels


def lengths(html):
    marks = [base64.b64decode(data).decode() for _, data in images(html)]
    return [int(re.findall(r'rect width="(\d+)"', mark)[1]) for mark in marks]


def test_scores_that_are_no_probabilities_have_bars_from_the_lowest_to_the_highest():
    assert lengths(shown(Ranking([(0, 6.0), (1, 2.0), (2, -2.0)]))["text/html"]) == [120, 60, 1]


def test_a_long_ranking_shows_its_first_rows_and_says_so():
    bundle = shown(Ranking([(i, 1 / (i + 1)) for i in range(1000)], "q", ["text"] * 1000))
    assert bundle["text/plain"].endswith("\n… and 950 more")
    assert bundle["text/html"].count("<tr>") == 51
    assert "… and 950 more" in bundle["text/html"]


def test_a_sparse_embedding_shows_its_heaviest_tokens():
    bundle = shown(SPARSE)
    assert bundle["text/plain"] == "weights of 2 tokens: Paris 0.5, of 0.2"
    page = BeautifulSoup(bundle["text/html"], "html.parser")
    rows = [[cell.text for cell in row.find_all("td")] for row in page.find_all("tr")]
    assert rows == [[], ["0.5", "", "9", "Paris"], ["0.2", "", "7", "of"]]


def test_inside_of_other_values_it_is_as_short():
    assert pretty({"a": [ONE]}) == "{'a': [embedding of 3 numbers, norm 1.00: [0.6, -0.8, 0]]}"


@pytest.mark.parametrize(
    "value",
    [
        Embeddings([[1.0, 2.0]] * 3, [HARM] * 3), Ranking([(0, 0.5)], HARM, [HARM]), Weights([(1, 0.5)], [HARM]),
        Ranking([(0, 0.5)], HARM, [{"text": HARM}]), Embeddings([[1.0, 2.0]] * 30, [HARM] * 30),
    ],
    ids=["several", "ranking", "weights", "objects", "thirty"],
)  # fmt: skip
def test_a_text_is_never_live(value):
    bundle = shown(value)
    bundle["text/html"].encode()
    bundle["text/plain"].encode()
    assert "\x1b" not in bundle["text/plain"] + bundle["text/html"]
    page = BeautifulSoup(bundle["text/html"], "html.parser")
    assert {tag.name for tag in page.find_all()} <= {
        "div", "img", "table", "thead", "tbody", "tr", "th", "td",
    }  # fmt: skip
    assert {name for tag in page.find_all() for name in tag.attrs} <= {"alt", "src", "style"}
    for kind, data in images(bundle["text/html"]):
        if "svg" in kind:
            root = ET.fromstring(base64.b64decode(data))
            assert {node.tag.partition("}")[2] for node in root.iter()} <= {
                "svg",
                "image",
                "text",
                "rect",
            }


@pytest.mark.parametrize(
    "value",
    [
        Embedding(), Embedding([0.0]), Embedding([math.nan, math.inf, 1.0]), Embeddings(), Embeddings([[1.0]]),
        Embeddings([[0.0, 0.0], [math.inf, math.nan], [1.0, 0.0]]), Embeddings([[1.0], [1.0, 2.0]], ["one too few"]),
        Ranking(), Ranking([(0, math.nan), (7, math.inf), (-1, 0.0)], "q", ["a"]), Weights(), Weights([(1, 2.0)]),
    ],
    ids=repr,
)  # fmt: skip
def test_whatever_is_in_it_something_is_shown(value):
    assert {"text/plain", "text/html"} <= shown(value).keys()
    assert all(shown(value).values())
