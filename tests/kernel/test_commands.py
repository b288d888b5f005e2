"""The commands of `%lazyllm` in real kernels, on the real small model."""

import time

MODEL = "smollm2-135m-instruct"
PID = "from lazynb.jobs import manager; print([j.state.process.pid for j in manager().jobs() if j.live])"


def test_deploy_returns_at_once_and_its_progress_settles_to_one_line(shell):
    begin = time.monotonic()
    reply = shell.run(f"%lazyllm deploy {MODEL}")
    assert reply.status == "ok"
    assert time.monotonic() - begin < 0.7
    waited = shell.run(f"%lazyllm deploy {MODEL} --wait")  # the same again is free, and waits
    line = waited.settled["text/plain"]
    assert line.startswith(f"{MODEL} · ready in ")
    assert "\n" not in line
    assert "llamacpp · http://127.0.0.1:" in line
    first = shell.run(PID).text
    begin = time.monotonic()
    assert shell.run(f"%lazyllm deploy {MODEL} --wait").settled["text/plain"] == line
    assert time.monotonic() - begin < 0.5
    assert shell.run(PID).text == first


def test_a_cell_for_a_model_that_is_still_starting_waits_for_it(shell):
    shell.run(f"%lazyllm deploy {MODEL}")
    reply = shell.run(f"%%lazyllm {MODEL} --max-tokens 3 -o answer\nhello")
    assert reply.status == "ok", reply.error
    assert shell.run("print(answer.status)").text == "done"
    assert len(eval(shell.run(PID).text)) == 1


def test_what_runs_is_listed_its_log_shown_and_it_is_stopped(shell, running):
    assert "Nothing is running" in str(shell.run("%lazyllm ps").outputs)
    assert shell.run("%lazyllm stop all").text == "Nothing is running."
    shell.run(f"%lazyllm deploy {MODEL} --wait")
    (table,) = [o for o in shell.run("%lazyllm ps").outputs if "data" in o]
    assert "<table" in table["data"]["text/html"]
    assert f"{MODEL}  ready   llamacpp" in table["data"]["text/plain"]
    assert "this kernel" in table["data"]["text/plain"]
    assert "listening on" in shell.run(f"%lazyllm logs {MODEL}").text
    assert shell.run(f"%lazyllm stop {MODEL}").text == f"{MODEL} · stopped"
    deadline = time.monotonic() + 12
    while running() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert running() == []
    gone = shell.run(f"%lazyllm stop {MODEL}")
    assert gone.status == "error"
    assert "Nothing is running" in gone.error


def test_a_kept_model_is_found_used_and_stopped_by_another_kernel(shell, start_kernel):
    shell.run(f"%lazyllm deploy {MODEL} --keep --wait")
    before = shell.run(PID).text
    shell.shutdown()
    time.sleep(2.5)  # the supervisor looks once a second
    other = start_kernel()
    other.run("%load_ext lazynb")
    (table,) = [o for o in other.run("%lazyllm ps").outputs if "data" in o]
    assert "kept" in table["data"]["text/plain"]
    assert other.run(f"%%lazyllm {MODEL} --max-tokens 3\nhello").status == "ok"
    assert other.run(PID).text == before
    assert other.run(f"%lazyllm stop {MODEL}").text == f"{MODEL} · stopped"
    assert other.run(PID).text == "[]"


def test_settings_and_help(shell):
    assert "start_timeout = 600.0  (default)" in shell.run("%lazyllm config").text
    shell.run("%lazyllm config start_timeout=30")
    shown = shell.run("%lazyllm config start_timeout").text
    assert shown.startswith("start_timeout = 30.0  (set in this kernel)")
    wrong = shell.run("%lazyllm config start_timeout=soon")
    assert wrong.status == "error"
    overview = shell.run("%lazyllm help").text
    for command in ("deploy", "ps", "stop", "logs", "show", "config", "finetune", "install"):
        assert f"%lazyllm {command}" in overview
    assert "--temperature" in shell.run("%lazyllm help ask").text
    assert "--keep" in shell.run("%lazyllm help deploy").text
    missing = shell.run("%lazyllm help deplyo")
    assert missing.status == "error"


def test_a_system_message_and_an_answer_in_the_background(shell):
    shell.run(f"%lazyllm deploy {MODEL} --wait")
    reply = shell.run(
        f"%%lazyllm {MODEL} --system 'Be short.' --bg --max-tokens 200 --ignore-eos true -o answer\nhi"
    )
    assert reply.status == "ok"
    states = shell.run("print(answer.status, answer.messages[0], answer.wait().status)").text
    assert states.startswith(("waiting", "streaming"))
    assert "'content': 'Be short.'" in states
    assert states.endswith("done")
