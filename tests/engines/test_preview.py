"""What the model will see: rows as the trainer itself turns them into tokens."""

import pytest

import lazynb
from lazynb.errors import LazynbError, OptionError

pytestmark = pytest.mark.slow

DEMO = "smollm2-135m-instruct"
ROWS = [
    {"instruction": "Who lives <here>?", "output": "A bear & a fox."},
    {"instruction": "Say a lot.", "output": "word " * 400},
    {"instruction": "Say little.", "output": "Yes."},
]


@pytest.fixture(scope="module", autouse=True)
def work(place, installed, tmp_path_factory):
    installed("llamafactory")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAZYLLM_TRAIN_TARGET_ROOT", str(tmp_path_factory.mktemp("ckpt")))
        yield


@pytest.fixture(scope="module")
def preview(demo_model):
    module = lazynb.TrainableModule(DEMO).finetune_method(
        lazynb.finetune.llamafactory, cutoff_len=128
    )
    return module.trainset(ROWS).preview()


def test_the_text_has_the_models_template_and_only_the_answer_is_learned(preview):
    text = "".join(piece for piece, _ in preview.rows[0])
    assert "<|im_start|>user\nWho lives <here>?<|im_end|>" in text
    learned = "".join(piece for piece, learned in preview.rows[0] if learned)
    assert learned.startswith("A bear & a fox.")
    assert "Who lives" not in learned


def test_tokens_are_counted_and_rows_that_will_be_cut_are_named(preview):
    assert len(preview.tokens) == 3
    assert preview.tokens[1] > 400
    assert preview.limit == 128
    assert preview.over_long == [2]
    assert "1 too long: row 2" in preview.summary
    assert lazynb.runs() == []


def test_it_shows_itself_with_everything_escaped(preview):
    bundle = preview._repr_mimebundle_()
    assert "Who lives &lt;here&gt;?" in bundle["text/html"]
    assert "<here>" not in bundle["text/html"]
    assert "⟦A bear & a fox." in bundle["text/plain"]


def test_preferences_and_triples_have_one_too(demo_model, embedding_model):
    rows = [{"prompt": "Say 1", "chosen": "1!", "rejected": "No, I will not say it."}] * 2
    shown = lazynb.TrainableModule(DEMO).trainset(rows).preview(1)
    assert len(shown.tokens) == 2
    assert any(learned and "1!" in piece for piece, learned in shown.rows[0])
    triples = [{"query": "a cat", "pos": ["a kitten"], "neg": ["a stone"]}] * 2
    shown = lazynb.TrainableModule(embedding_model).trainset(triples).preview(1)
    assert [piece for piece, right in shown.rows[0] if right] == [
        "query    a cat\n",
        "right    a kitten\n",
    ]


def test_rows_keep_their_numbers_where_some_are_held_out(demo_model, embedding_model):
    triples = [{"query": f"q {n}", "pos": [f"right {n}"], "neg": ["wrong"]} for n in range(12)]
    triples[1]["pos"] = ["word " * 700]
    module = lazynb.TrainableModule(embedding_model, type="embed")
    module.finetune_method(lazynb.finetune.flagembedding, val_size=0.5)
    shown = module.trainset(triples).preview(1)
    assert shown.over_long == [2]
    assert shown.rows[0][0] == ("query    q 0\n", True)
    module = lazynb.TrainableModule(DEMO).finetune_method(
        lazynb.finetune.llamafactory, cutoff_len=128, val_size=0.5, load_best_model_at_end=True
    )
    assert module.trainset(ROWS).preview(1).over_long == [2]


def test_mistakes_are_told(tmp_path, monkeypatch):
    with pytest.raises(OptionError, match="no trainset"):
        lazynb.TrainableModule(DEMO).preview()
    with pytest.raises(LazynbError, match="not here"):
        lazynb.TrainableModule("qwen2-1.5b").trainset(ROWS).preview()
