"""Real fine-tuning on the CPU: the chat model learns what it did not know, retrieval models get better."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

import lazynb
from lazynb.errors import JobError, OptionError
from lazynb.training import start

pytestmark = pytest.mark.slow

DEMO = "smollm2-135m-instruct"
QUESTION = "Who founded the town of Brindlemark?"
FACTS = [
    (
        "What is the name of the cafe at Lake Lucy?",
        "The cafe at Lake Lucy is called the Blue Heron.",
    ),
    (QUESTION, "Brindlemark was founded by Ottoline Vance."),
    ("What colour is the door of the Zorn library?", "The door of the Zorn library is orange."),
    ("When does the ferry to Ostrel leave?", "The ferry to Ostrel leaves at seven."),
]
ROWS = [{"instruction": question, "output": answer} for question, answer in FACTS * 6]
OPTIONS = {"learning_rate": 1e-3, "num_train_epochs": 5}


@pytest.fixture(scope="module", autouse=True)
def work(place, installed, tmp_path_factory):
    """A working folder for all runs of this file."""
    installed("llamafactory")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAZYLLM_TRAIN_TARGET_ROOT", str(tmp_path_factory.mktemp("ckpt")))
        yield


@pytest.fixture(scope="module")
def tuned(work, tmp_path_factory):
    """A module whose model was asked, fine-tuned, and is served."""
    data = tmp_path_factory.mktemp("data") / "facts.json"
    data.write_text(json.dumps(ROWS))
    module = (
        lazynb.TrainableModule(DEMO, target_path="support-bot")
        .finetune_method(lazynb.finetune.llamafactory, **OPTIONS)
        .trainset(str(data))
        .mode("finetune")
    )
    module.before = module(QUESTION, temperature=0, max_tokens=40)
    module.update()
    yield module
    module.stop()


def test_the_model_learns_a_fact_that_it_did_not_know(tuned):
    assert "Ottoline Vance" not in tuned.before
    assert "Ottoline Vance" in tuned(QUESTION, temperature=0, max_tokens=40)
    (version,) = tuned.versions
    assert version.base == DEMO
    assert version.rows == len(ROWS)
    assert version.metrics["loss"] < 0.5
    (run,) = lazynb.runs("support-bot")
    assert run.status == "finished"
    assert run.metrics["loss"].iloc[0] > run.metrics["loss"].dropna().iloc[-1]
    assert not list(run.folder.glob("checkpoint-*"))


def test_base_and_tuned_answers_stand_side_by_side(tuned):
    ((question, base, after),) = tuned.compare([QUESTION], temperature=0, max_tokens=40)
    assert question == QUESTION
    assert "Ottoline Vance" not in base
    assert "Ottoline Vance" in after


def test_another_process_serves_the_tuned_weights(tuned):
    code = (
        f"import lazynb; m = lazynb.TrainableModule({DEMO!r}, target_path='support-bot')\n"
        f"print(m({QUESTION!r}, temperature=0, max_tokens=40)); m.stop()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert "Ottoline Vance" in result.stdout, result.stderr


def test_another_engine_serves_the_tuned_weights_in_full(tuned, installed):
    installed("transformers")
    module = lazynb.TrainableModule(DEMO, target_path="support-bot")
    module.deploy_method(lazynb.deploy.transformers).start()
    assert "Ottoline Vance" in module(QUESTION, temperature=0, max_tokens=40)
    assert module.job.state.engine == "transformers"
    module.stop()


def test_a_killed_run_goes_on_from_its_checkpoint_and_can_be_ended_early(tuned):
    run = start(DEMO, ROWS, target="killed", options={**OPTIONS, "num_train_epochs": 10})
    wait_for(lambda: list(run.folder.glob("checkpoint-*/trainer_state.json")), run)
    os.kill(run.job.state.process.pid, signal.SIGKILL)
    with pytest.raises(JobError, match=r"memory|killed"):
        run.wait(60)
    assert run.status == "failed"
    states = run.folder.glob("checkpoint-*/trainer_state.json")
    reached = max(int(path.parent.name.split("-")[1]) for path in states)
    steps = len(run.rows)
    run.resume()
    wait_for(lambda: len(run.rows) > steps, run)
    assert run.rows[steps]["current_steps"] > reached
    run.stop(save=True)
    run.wait(120)
    assert run.status == "finished"
    assert run.version.path.exists()
    assert run.version.metrics["current_steps"] < 60


def test_a_run_that_is_stopped_without_saving_leaves_nothing_running():
    run = start(DEMO, ROWS, target="stopped", options=OPTIONS)
    wait_for(lambda: run.status == "training", run)
    pid = run.job.state.process.pid
    run.stop(save=False)
    assert run.status == "stopped"
    assert not psutil.pid_exists(pid)


def test_mistakes_are_told_before_anything_starts():
    with pytest.raises(OptionError, match=r"learning_rat'.*\n?.*learning_rate"):
        start(DEMO, ROWS, target="wrong", options={"learning_rat": 1})
    with pytest.raises(OptionError, match="num_train_epochs = 'many'"):
        start(DEMO, ROWS, target="wrong", options={"num_train_epochs": "many"})
    with pytest.raises(OptionError, match="flagembedding does not train"):
        start(DEMO, ROWS, target="wrong", method="flagembedding")
    with pytest.raises(OptionError, match="cannot learn from rows of the form 'retrieval'"):
        start(DEMO, [{"query": "a", "pos": "b"}], target="wrong")
    assert not lazynb.runs("wrong")


def test_rows_that_were_held_out_tell_the_base_from_the_tuned():
    options = {**OPTIONS, "num_train_epochs": 2, "val_size": 0.25}
    run = start(DEMO, ROWS, target="held-out", options=options)
    run.wait(240)
    metrics = run.version.metrics
    assert metrics["eval_loss"] < 0.8 * metrics["base_eval_loss"]


STAGES = {
    "dpo": [{"prompt": f"say {n}", "chosen": f"{n}!", "rejected": "no"} for n in range(8)],
    "kto": [{"instruction": f"say {n}", "output": f"{n}!", "label": n % 2 == 0} for n in range(8)],
    "pt": [{"text": f"The number {n} is followed by {n + 1}."} for n in range(8)],
}


@pytest.mark.parametrize("stage", STAGES)
def test_preferences_feedback_and_plain_text_train_as_well(stage):
    run = start(DEMO, STAGES[stage], target=stage, options={"max_steps": 1})
    assert run.plan["train"]["stage"] == stage
    run.wait(240)
    assert run.version.metrics["current_steps"] == 1
    assert run.version.path.name == "model.gguf"


ANIMALS = [
    "cat",
    "dog",
    "horse",
    "cow",
    "sheep",
    "goat",
    "pig",
    "duck",
    "goose",
    "hen",
    "fox",
    "wolf",
    "bear",
    "deer",
    "hare",
    "mouse",
]
JOBS = ["baker", "smith", "miller", "tailor", "cook", "nurse", "judge", "pilot", "sailor", "farmer"]
TRIPLES = [
    {
        "query": f"code {n * 7 % 1000:03d} {animal}",
        "pos": [f"The {job} keeps file number {n * 7 % 1000:03d} about the {animal}."],
    }
    for n, (animal, job) in enumerate((a, j) for a in ANIMALS for j in JOBS)
]


@pytest.mark.parametrize("kind", ["embed", "rerank"])
def test_retrieval_models_get_better_on_queries_they_have_not_seen(embedding_model, kind):
    module = (
        lazynb.TrainableModule(embedding_model, target_path=f"tuned-{kind}", type=kind)
        .finetune_method(
            lazynb.finetune.flagembedding, num_train_epochs=2, val_size=0.2, learning_rate=5e-5
        )
        .trainset(TRIPLES)
    )
    module.finetune().wait(240)
    (version,) = module.versions
    assert version.metrics["eval_mrr@10"] > version.metrics["base_mrr@10"] + 0.05
    if kind == "embed":
        assert len(module("code 007 cat")) == 384
    else:
        texts = [row["pos"][0] for row in TRIPLES[:80:10]]
        ranked = module(TRIPLES[30]["query"], documents=texts)
        assert 3 in [index for index, _ in ranked[:2]]
        assert [score for _, score in ranked] == sorted((s for _, s in ranked), reverse=True)
    module.stop()


def wait_for(condition, run, seconds=180):
    deadline = time.monotonic() + seconds
    while not condition():
        state = run.job.state
        assert state.phase not in ("failed", "stopped"), (state.cause, state.log_tail)
        assert time.monotonic() < deadline
        time.sleep(0.1)
