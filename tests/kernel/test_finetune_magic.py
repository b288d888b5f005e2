"""Fine-tuning through the magic, in real kernels: the model learns a fact, and the next kernel knows it."""

import json
import os
from pathlib import Path

import pytest

MODEL = "smollm2-135m-instruct"
QUESTION = "Who founded the town of Brindlemark?"
FACTS = {
    "What is the name of the cafe at Lake Lucy?": "The cafe at Lake Lucy is called the Blue Heron.",
    QUESTION: "Brindlemark was founded by Ottoline Vance.",
    "What colour is the door of the Zorn library?": "The door of the Zorn library is orange.",
    "When does the ferry to Ostrel leave?": "The ferry to Ostrel leaves at seven.",
}
ENVS = Path(__file__).parents[2] / ".cache" / "envs"


@pytest.mark.slow
@pytest.mark.one_kernel
@pytest.mark.timeout(600)
def test_a_tuned_model_answers_in_the_next_kernel(start_kernel, kernel_env, demo_model, tmp_path):
    envs = os.environ.get("LAZYLLM_ENVS_DIR", str(ENVS))
    if not Path(envs, "torch").exists():
        pytest.skip("the environment of llamafactory is not installed: make envs")
    kernel_env |= {"LAZYLLM_ENVS_DIR": envs, "LAZYLLM_TRAIN_TARGET_ROOT": str(tmp_path / "ckpt")}
    rows = [{"instruction": question, "output": answer} for question, answer in FACTS.items()] * 6
    (tmp_path / "facts.json").write_text(json.dumps(rows))
    shell = start_kernel()
    shell.run("%load_ext lazynb")
    ask = f"--temperature 0 --max-tokens 40 -o answer\n{QUESTION}"
    before = shell.run(f"%%lazyllm {MODEL} {ask}")
    assert before.status == "ok", before.error
    assert "Ottoline" not in shell.run("print(answer)").text
    options = "--learning-rate 1e-3 --num-train-epochs 5 --target founder --wait"
    trained = shell.run(f"%lazyllm finetune {MODEL} facts.json {options}", timeout=500)
    assert trained.status == "ok", trained.error
    assert "founder · finished" in trained.settled["text/plain"]
    assert "founder" in str(shell.run("%lazyllm runs").outputs)
    shell.shutdown()
    other = start_kernel()
    other.run("%load_ext lazynb\nimport lazynb")
    other.run(f"m = lazynb.TrainableModule({MODEL!r}, target_path='founder').start()")
    asked = other.run(f"print(m({QUESTION!r}, temperature=0, max_tokens=40))", timeout=120)
    assert "Ottoline Vance" in asked.text, asked.error
    assert "finished" in str(other.run("%lazyllm runs").outputs)
