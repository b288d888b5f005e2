"""The magics in real kernels, on the real small model."""

import time

import pytest

MODEL = "smollm2-135m-instruct"


def test_a_model_that_is_not_running_is_deployed_and_answers(shell):
    shell.run('country = "France"')
    reply = shell.run(
        f'%%lazyllm {MODEL} --temperature 0 --max-tokens 30 -o answer\nThe capital of {{country}}? {{"a": 1}}'
    )
    assert reply.status == "ok", reply.error
    assert "tokens" in reply.settled["text/markdown"]
    assert not any(o["msg_type"] == "execute_result" for o in reply.outputs)  # shown once
    checks = shell.run(
        "print(answer.messages[-1]['content'], answer.usage.completion_tokens == answer.tokens, answer.finish_reason,"
        " _ is answer, answer.text == str(answer), answer.model)"
    )
    assert (
        checks.text == f'The capital of France? {{"a": 1}} True {"stop"} True True {MODEL}'
        or "length" in checks.text
    )
    again = shell.run("answer")
    assert again.settled["text/markdown"] == reply.settled["text/markdown"]
    last = shell.run("%lazyllm show last")
    assert last.settled["text/markdown"] == reply.settled["text/markdown"]
    assert MODEL in str(shell.run("%lazyllm ps").outputs)
    raw = shell.run(f"%%lazyllm {MODEL} --raw --max-tokens 5\nhello")
    assert raw.text
    assert not any(o["msg_type"] == "display_data" for o in raw.outputs)


def test_a_conversation_goes_on(shell):
    shell.run(f"%%lazyllm {MODEL} --chat c --max-tokens 5 --system Short. -o one\nhello")
    shell.run(f"%%lazyllm {MODEL} --chat c --max-tokens 5 -o two\nagain")
    assert (
        shell.run("print([m['role'] for m in two.messages])").text
        == "['user', 'assistant', 'user']"
    )
    assert shell.run("print([m['role'] for m in one.messages])").text == "['system', 'user']"
    assert shell.run("%lazyllm chat").text == "c · 2 turns"


def test_interrupt_stops_the_answer_and_not_the_model(shell):
    shell.run(f"%lazyllm deploy {MODEL} --wait")
    pid = "import lazynb.jobs; print(lazynb.jobs.manager().jobs()[0].state.process.pid)"
    before = shell.run(pid).text
    cell = shell.begin(
        f"%%lazyllm {MODEL} --max-tokens 4000 --ignore-eos true -o answer\nCount to a thousand."
    )
    queued = shell.begin("print('queued')")
    time.sleep(2.5)
    shell.interrupt()
    reply = shell.finish(cell)
    assert reply.error.startswith("KeyboardInterrupt")
    assert "stopped" in reply.settled["text/markdown"]
    assert shell.finish(queued).status in ("aborted", "error")
    assert shell.run("print(answer.status, answer.size > 0)").text == "cancelled True"
    assert shell.run(f"%%lazyllm {MODEL} --max-tokens 5\nhello").status == "ok"
    assert shell.run(pid).text == before


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("%%lazyllm smollm2-135m-instuct\nhi", MODEL),
        (f"%%lazyllm {MODEL} --temprature 1\nhi", "--temperature"),
        ("%lazyllm dploy x", "deploy"),
        ("%lazyllm stop nothing", "Nothing is running"),
        ("%lazyllm config hom=x", "home"),
        (f"%lazyllm deploy {MODEL} --n-ctxx 5", "n_ctx"),
    ],
)
def test_an_error_is_one_line_and_fails_the_cell(shell, cell, said):
    reply = shell.run(cell)
    assert reply.status == "error"
    shown = "".join(o["text"] for o in reply.outputs if o["msg_type"] == "stream") + reply.error
    assert said in shown
    assert "Traceback" not in shown


def test_in_the_background_the_cell_returns_at_once(shell):
    shell.run(f"%lazyllm deploy {MODEL} --wait")
    begin = time.monotonic()
    reply = shell.run(f"%%lazyllm {MODEL} --bg --max-tokens 300 --ignore-eos true -o answer\nhello")
    assert reply.status == "ok"
    assert time.monotonic() - begin < 1.5
    assert shell.run("print(answer.done)").text == "False"
    assert shell.run("print(answer.wait().status)").text == "done"


def test_tab_completes_commands_options_and_models(shell):
    def complete(code):
        message = shell.client.complete(code, len(code))
        while True:
            reply = shell.client.get_shell_msg(timeout=20)
            if reply["parent_header"]["msg_id"] == message:
                return reply["content"]["matches"]

    assert "deploy" in " ".join(complete("%lazyllm dep"))
    assert MODEL in " ".join(complete("%%lazyllm smol"))
    assert "--temperature" in " ".join(complete(f"%%lazyllm {MODEL} --temp"))
