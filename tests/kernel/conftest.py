"""Real Jupyter kernels: `kernel` is one, `start_kernel()` gives more, for each interpreter in LAZYNB_TEST_PYTHONS."""

import os
import sys
import time
from dataclasses import dataclass, field

import psutil
import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager

PYTHONS = os.environ.get("LAZYNB_TEST_PYTHONS", sys.executable).split(":")


def pytest_collection_modifyitems(config, items):
    """Run what hangs on no kernel's version, marked `one_kernel`, with the first interpreter alone."""
    others = [
        item
        for item in items
        if item.get_closest_marker("one_kernel")
        and hasattr(item, "callspec")  # a test without a kernel among those with one has none
        and item.callspec.params.get("python", PYTHONS[0]) != PYTHONS[0]
    ]
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in set(others)]


@dataclass
class Reply:
    """What running a cell gave."""

    status: str = ""
    error: str = ""
    """The name of the exception and its message."""
    outputs: list[dict] = field(default_factory=list)
    """The content of each message on the iopub channel, with its `msg_type`."""

    @property
    def text(self) -> str:
        """What was printed to standard output."""
        return "".join(o["text"] for o in self.outputs if o.get("name") == "stdout").strip()

    @property
    def settled(self) -> dict:
        """What the last of its outputs holds in the end, by MIME type."""
        return [o["data"] for o in self.outputs if o["msg_type"].endswith("display_data")][-1]


class Kernel:
    """A kernel in a process of its own, and a client of it."""

    def __init__(self, python, cwd, env):
        argv = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        self.manager = KernelManager(
            connection_file=str(cwd / f"kernel-{time.monotonic_ns()}.json")
        )
        self.manager._kernel_spec = KernelSpec(argv=argv, display_name="", language="python")
        self.manager.start_kernel(cwd=str(cwd), env=env)
        self._connect()

    def _connect(self):
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    @property
    def pid(self) -> int:
        """The process id of the kernel."""
        return self.manager.provisioner.pid

    def run(self, code, timeout=60) -> Reply:
        """Run a cell and return what it gave."""
        return self.finish(self.begin(code), timeout)

    def begin(self, code) -> str:
        """Send a cell, and return without waiting for it."""
        return self.client.execute(code)

    def finish(self, cell, timeout=60) -> Reply:
        """Wait for a cell that was sent."""
        reply, deadline = Reply(), time.monotonic() + timeout
        while True:
            message = self.client.get_iopub_msg(timeout=max(0.1, deadline - time.monotonic()))
            if message["parent_header"].get("msg_id") != cell:
                continue
            content = message["content"]
            if message["msg_type"] == "status" and content["execution_state"] == "idle":
                break
            reply.outputs.append({**content, "msg_type": message["msg_type"]})
        while True:
            message = self.client.get_shell_msg(timeout=max(0.1, deadline - time.monotonic()))
            if message["parent_header"].get("msg_id") == cell:
                break
        reply.status = message["content"]["status"]
        if reply.status == "error":
            reply.error = f"{message['content']['ename']}: {message['content']['evalue']}"
        return reply

    def interrupt(self):
        """Interrupt it, as the stop button does."""
        self.manager.interrupt_kernel()

    def restart(self):
        """Restart it, as the menu does."""
        self.client.stop_channels()
        self.manager.restart_kernel()
        self._connect()

    def shutdown(self):
        """Shut it down in good order."""
        self.client.stop_channels()
        self.manager.shutdown_kernel()

    def kill(self):
        """Kill it with SIGKILL."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(
    params=PYTHONS, ids=lambda python: python.split("/")[-3] if "/" in python else python
)
def python(request) -> str:
    """The interpreter of the kernels."""
    return request.param


@pytest.fixture
def kernel_env(tmp_path, model_cache) -> dict[str, str]:
    """The environment of the kernels: nothing of this machine's user, jobs in the test's own folder."""
    return {
        **os.environ,
        "LAZYLLM_HOME": str(tmp_path / "home"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "LAZYLLM_MODEL_CACHE_DIR": str(model_cache),
    }


@pytest.fixture
def start_kernel(python, tmp_path, kernel_env):
    """Start kernels, as many as are asked for."""
    kernels = []

    def start() -> Kernel:
        kernels.append(Kernel(python, tmp_path, kernel_env))
        return kernels[-1]

    yield start
    for kernel in kernels:
        if kernel.manager.is_alive():
            kernel.kill()
        kernel.manager.cleanup_resources()


@pytest.fixture
def kernel(start_kernel) -> Kernel:
    """A kernel."""
    return start_kernel()


@pytest.fixture
def shell(start_kernel, demo_model):
    """A kernel with the magics; in the end, what it started is stopped."""
    kernel = start_kernel()
    assert kernel.run("%load_ext lazynb").status == "ok"
    yield kernel
    if kernel.manager.is_alive():
        kernel.run("%lazyllm stop all")


@pytest.fixture
def running(kernel_env):
    """A function that lists the processes that work for this test: supervisors, engines, all of theirs; no kernels."""

    def processes():
        found = []
        for process in psutil.process_iter():
            try:
                mine = process.environ().get("LAZYLLM_HOME") == kernel_env["LAZYLLM_HOME"]
                words = process.cmdline()
            except psutil.Error:
                continue
            if mine and words and "ipykernel_launcher" not in words:
                found.append(" ".join(words))
        return found

    return processes
