"""Training data: every form is recognised, and a wrong row is named by its line before anything starts."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazynb.errors import OptionError
from lazynb.training import read
from lazynb.training.data import DataError

ASKED = {"role": "user", "content": "hi"}
SAID = {"role": "assistant", "content": "ho"}
CHAT = [ASKED, SAID]


def write(path, rows):
    path.write_text(json.dumps(rows, indent=2), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "hi", "output": "ho"},
        {"instruction": "hi", "input": "", "output": "ho"},
        {"prompt": "hi", "completion": "ho"},
        {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]},
        {"messages": CHAT},
        {"prompt": "hi", "response": "ho", "extra": 1},
    ],
)
def test_chat_rows_of_every_form_become_messages(row):
    dataset = read([row])
    assert dataset.shape == "messages"
    assert dataset.rows == [{"messages": CHAT}]


def test_alpaca_system_history_and_input_are_kept():
    row = {
        "instruction": "sum",
        "input": "1 2",
        "output": "3",
        "system": "be short",
        "history": [["hi", "ho"]],
    }
    (row,) = read([row]).rows
    assert [m["role"] for m in row["messages"]] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    assert row["messages"][3]["content"] == "sum\n1 2"


@pytest.mark.parametrize(
    ("row", "shape", "expected"),
    [
        (
            {"prompt": "hi", "chosen": "ho", "rejected": "no"},
            "preference",
            {"messages": [ASKED], "chosen": SAID, "rejected": {**SAID, "content": "no"}},
        ),
        ({"messages": CHAT, "label": True}, "feedback", {"messages": CHAT, "label": True}),
        ({"text": "words"}, "text", {"text": "words"}),
        ({"query": "q", "pos": "a"}, "retrieval", {"query": "q", "pos": ["a"], "neg": []}),
    ],
)
def test_other_forms_are_recognised(row, shape, expected):
    dataset = read([row])
    assert (dataset.shape, dataset.rows) == (shape, [expected])


def test_every_file_format_holds_the_same_rows(tmp_path):
    pandas = pytest.importorskip("pandas")
    rows = [{"instruction": f"q{i},\n“é”", "output": f"a{i}"} for i in range(3)]
    frame = pandas.DataFrame(rows)
    frame.to_csv(tmp_path / "d.csv", index=False)
    frame.to_csv(tmp_path / "d.tsv", index=False, sep="\t")
    (tmp_path / "d.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    write(tmp_path / "d.json", rows)
    wanted = read(rows).rows
    assert read(frame).rows == wanted
    for suffix in ("csv", "tsv", "jsonl", "json"):
        assert read(tmp_path / f"d.{suffix}").rows == wanted, suffix


def test_parquet_and_datasets(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    rows = [{"messages": CHAT}]
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "d.parquet")
    assert read(tmp_path / "d.parquet").rows == rows
    (tmp_path / "e.parquet").write_text("no")
    with pytest.raises(OptionError, match="no Parquet"):
        read(tmp_path / "e.parquet")


WRONG = {
    "no answer": ({"messages": [ASKED]}, "not with an answer"),
    "an empty answer": ({"instruction": "hi", "output": "  "}, "output is empty"),
    "a number": ({"instruction": "hi", "output": 3}, "output is 3, not a text"),
    "a missing field": ({"instruction": "hi", "outputs": "ho"}, "not with an answer"),
    "an unknown role": ({"messages": [{"role": "boss", "content": "x"}, SAID]}, "role 'boss'"),
    "two in a row": ({"messages": [ASKED, ASKED, SAID]}, "take turns"),
    "answer first": ({"messages": [SAID, ASKED]}, "take turns"),
    "a late system message": (
        {"messages": [ASKED, {"role": "system", "content": "x"}, SAID]},
        "after other messages",
    ),
    "an empty conversation": ({"messages": []}, "conversation is empty"),
    "broken history": ({"instruction": "a", "output": "b", "history": [["x"]]}, "pair"),
    "no object": ("text", "not an object"),
    "a null": ({"messages": [ASKED, {"role": "assistant", "content": None}]}, "not a text"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_row_is_named_by_its_line(tmp_path, name):
    row, message = WRONG[name]
    good = {"messages": CHAT} if isinstance(row, dict) and "messages" in row else None
    good = good or {"instruction": "hi", "output": "ho"}
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join(map(json.dumps, [good, good, good, row, good])))
    with pytest.raises(DataError, match=message) as error:
        read(path)
    assert "line 4" in str(error.value)
    assert "1 of 5 rows" in str(error.value)


def test_lines_of_a_json_array_are_counted(tmp_path):
    rows = [{"instruction": "hi", "output": "ho"}] * 3 + [{"instruction": "hi", "output": ""}]
    with pytest.raises(DataError, match="line 14: "):
        read(write(tmp_path / "d.json", rows))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.json", b'[{"a": 1}', "comma or the closing"),
        ("d.json", b'[{"a": 1},\n{"a" 2}]', "line 2: no JSON"),
        ("d.jsonl", b'{"a": 1}\n{"a":', "line 2: no JSON"),
        ("d.json", b"", "holds no rows"),
        ("d.json", b"[]", "holds no rows"),
        ("d.json", b'[{"foo": 1}]', r"no known form.*'foo'"),
        ("d.json", "[{'a': é}]".encode("latin-1"), "not UTF-8"),
        ("d.csv", b"instruction,output\na,b,c\n", "line 2: it has more or fewer fields"),
        ("d.txt", b"hello", "no known format"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(OptionError, match=message):
        read(tmp_path / name)


def test_a_folder_is_all_its_files_and_a_file_without_an_ending_is_json(tmp_path):
    write(tmp_path / "a.json", [{"text": "one"}])
    (tmp_path / "b.csv").write_text("text\ntwo\n")
    (tmp_path / "notes.txt").write_text("no")
    assert [row["text"] for row in read(tmp_path).rows] == ["one", "two"]
    (tmp_path / "b.csv").write_text("text\n  \n")
    with pytest.raises(DataError, match=r"b\.csv, line 2: its text is empty"):
        read(tmp_path)
    assert len(read(write(tmp_path / "data", [{"text": "one"}]))) == 1


def test_a_missing_file_names_the_files_there_are(tmp_path):
    write(tmp_path / "train.json", [])
    with pytest.raises(OptionError, match=r"train\.json"):
        read(tmp_path / "trian.json")


def test_something_else_is_no_data():
    with pytest.raises(DataError, match="int is no training data"):
        read(3)


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1))
def test_any_text_arrives_as_it_was_or_is_refused_by_its_row(pairs):
    rows = [{"instruction": question, "output": answer} for question, answer in pairs]
    try:
        read_rows = read(rows).rows
    except DataError as error:
        number = int(str(error).split("row ")[1].split(":")[0])
        assert not all(text.strip() for text in pairs[number - 1])
    else:
        assert [tuple(m["content"] for m in row["messages"]) for row in read_rows] == pairs
