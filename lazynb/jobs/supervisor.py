"""The supervisor of one job: `python -m lazynb.jobs.supervisor FOLDER`.

It runs in a session of its own, so that an interrupted cell does not reach the program, and it is the reaper of
all that the program starts, so that nothing of it can get away. Its standard input is the read end of a pipe
from the kernel: when the kernel is gone, so is everything here, unless the job is kept. It is one loop over
file descriptors and a few signals; the only other thread asks the service whether it is ready.
"""

from __future__ import annotations

import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from lazynb.config import config
from lazynb.jobs import causes, ports, process
from lazynb.jobs.ending import Ending, ended_for, idle, not_ready, port_taken
from lazynb.jobs.folder import JobFolder
from lazynb.jobs.log import BoundedLog
from lazynb.jobs.loop import Loop
from lazynb.jobs.output import Output
from lazynb.jobs.program import Program, end_all, environment, reap
from lazynb.jobs.record import Record
from lazynb.jobs.spec import Command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazynb.jobs.load import Watch
    from lazynb.jobs.spec import Probe

PERIOD = 1.0  # seconds between two looks at the kernel and at the folder
PORT_ATTEMPTS = 3
FAILED_GRACE = 1.0  # seconds that the rest of a program gets when the program itself failed
DISK_PATIENCE = 5.0  # seconds that a last state waits for a full disk
TAIL = 20
LOOK = 15.0  # seconds between two looks at what a service works on
LOOK_TIMEOUT = 2.0
SETTLE = 0.1  # seconds in which who was about to use a service says so


class Supervisor:
    """Runs one job.

    Parameters
    ----------
    folder : JobFolder
        The job's folder, which holds its spec and its key.
    """

    def __init__(self, folder: JobFolder) -> None:
        self.folder = folder
        self.spec = folder.read_spec()
        self.key = folder.read_key()
        self.log = BoundedLog(folder, config.log_bytes)
        self.loop = Loop()
        self.program: Program | None = None
        self.output: Output | None = None
        self.watch: Watch | None = None
        self._killed = causes.killed_for_memory()
        self._abandoned = False
        self._looked = time.monotonic()
        process.adopt_orphans()
        self.record = Record(folder, self.log, process.myself())
        if not self.spec.keep:
            self.loop.add(sys.stdin.fileno(), self._owner_left)

    def run(self) -> None:
        """Run the job to its end; its state says how it ended."""
        try:
            command = self._prepare()
            self._serve(command)
        except Ending as ending:
            self._finish(ending)
        except Exception:  # noqa: BLE001  (whatever it is, nothing may be left running)
            self.log.add(traceback.format_exc().splitlines())
            self._finish(
                Ending("failed", "its supervisor failed", "Please report it, with the log.")
            )

    # The phases.

    def _prepare(self) -> Command:
        if self.spec.command is not None:
            self.folder.write_command(self.spec.command)
            return self.spec.command
        self.record.enter("downloading", "preparing")
        preparation = Command(
            argv=[*(self.spec.prepare or []), str(self.folder.path)], serves=False
        )
        self._start(preparation, preparation.argv, {})
        if self._run_to_end(preparation) != 0:
            raise self._failure(preparation)
        self._end_all(FAILED_GRACE)
        if self.spec.kind == "download":
            raise Ending("stopped", returncode=0)
        try:
            return self.folder.read_command()
        except (OSError, msgspec.DecodeError) as error:
            raise Ending("failed", f"its preparation wrote no command ({error})") from error

    def _serve(self, command: Command) -> None:
        fixed = command.port or self.spec.port
        for attempt in range(1, PORT_ATTEMPTS + 1):
            if fixed and ports.taken(fixed):
                raise port_taken(fixed)
            try:
                self._run(command, (fixed or ports.free()) if command.serves else None)
            except Ending as ending:
                if not self._lost_port(ending):
                    raise
                if fixed and ports.taken(fixed):
                    raise port_taken(fixed) from ending
                if fixed or attempt == PORT_ATTEMPTS:
                    raise
                self.log.lines.clear()

    def _run(self, command: Command, port: int | None) -> None:
        engine = command.engine or self.spec.engine
        self.record.enter("loading", f"starting {engine}".strip(), port=port, engine=engine)
        port_text = str(port or "")
        self._start(
            command,
            [word.replace("{port}", port_text) for word in command.argv],
            {
                name: value.replace("{port}", port_text).replace("{key}", self.key)
                for name, value in command.env.items()
            },
        )
        if command.ready is not None and port is not None:
            self._wait_until_ready(command, command.ready, port)
        self.record.enter("ready")
        if command.ready is not None and port is not None:
            self._watch_load(command.load, port)
        returncode = self._run_to_end(command)
        if returncode == 0 and command.ready is None:
            raise Ending("stopped", returncode=0)
        raise self._failure(command)

    def _wait_until_ready(self, command: Command, request: Probe, port: int) -> None:
        from lazynb.jobs.probe import ReadinessProbe  # while the program starts

        probe = ReadinessProbe(request, port, self.key, self.loop.wake)
        deadline = time.monotonic() + config.start_timeout
        try:
            while not probe.ready:
                if not self._turn():
                    raise self._failure(command)
                if probe.refused:
                    raise Ending("failed", f"it refuses requests: {probe.last_answer}")
                if time.monotonic() > deadline:
                    raise not_ready(config.start_timeout, probe.last_answer)
        finally:
            probe.cancel()

    def _finish(self, ending: Ending) -> None:
        failed = ending.phase == "failed"
        if self.watch is not None:
            self.watch.cancel()
        if not failed and self.record.state.phase != "stopping":
            self.record.enter("stopping", "stopping")
        self._end_all(FAILED_GRACE if failed else config.stop_grace)
        self.record.enter(
            ending.phase,
            returncode=ending.returncode,
            cause=ending.cause,
            hint=ending.hint,
            process=None,
            log_tail=list(self.log.lines)[-TAIL:] if failed else [],
        )
        deadline = time.monotonic() + DISK_PATIENCE
        while self.record.flush() is not None and time.monotonic() < deadline:
            time.sleep(0.5)

    # The program.

    def _start(self, command: Command, argv: Sequence[str], env: dict[str, str]) -> None:
        self.output = Output(self.log, self.record, command.progress, self.key)
        try:
            self.program = Program(argv, environment(env, self.spec.id), command.cwd)
        except (OSError, ValueError) as error:
            raise Ending("failed", *causes.cannot_run(error, argv)) from error
        self.record.note(self.record.state.text, process=process.identify(self.program.pid))
        self.loop.add(self.program.output.fileno(), self._read)

    def _run_to_end(self, command: Command) -> int | None:
        if self.output is not None:
            self.output.quiet = command.ready is not None
        while self._turn():
            pass
        return self.program.returncode if self.program else None

    def _read(self) -> bool:
        """Read what the program wrote; return whether there was any."""
        if self.program is None or self.output is None or self.program.output.closed:
            return False
        data = self.program.read()
        if data is not None:
            self.output.feed(data)
        if data == b"":
            self.loop.remove(self.program.output.fileno())
            self.program.output.close()
        return bool(data)

    def _end_all(self, grace: float) -> None:
        end_all(self.program, grace, self.loop.wait)
        while self._read():
            pass

    def _failure(self, command: Command) -> Ending:
        """End the rest of a program that ended by itself, and find out why it did."""
        self._end_all(min(FAILED_GRACE, config.stop_grace))
        returncode = self.program.returncode if self.program else None
        told = self.output.failure if self.output else None
        cause, hint = told or causes.diagnose(
            list(self.log.lines),
            returncode or 0,
            command.causes,
            advice=command.advice,
            killed=causes.killed_for_memory() > self._killed,
        )
        return Ending("failed", cause, hint, returncode)

    def _lost_port(self, ending: Ending) -> bool:
        return (
            ending.phase == "failed"
            and self.record.state.phase == "loading"
            and any(causes.ADDRESS_IN_USE.search(line) for line in self.log.lines)
        )

    # The loop.

    def _turn(self) -> bool:
        """Do what there is to do, or wait for it a little; return whether the program still runs."""
        self.loop.wait(self.record.flush() or PERIOD)
        reap(self.program)
        if time.monotonic() - self._looked > PERIOD:
            self._looked = time.monotonic()
            self._abandoned |= not self.folder.path.exists()
            if not self.spec.keep and not process.alive(self.spec.owner):
                self._owner_left()
            self._end_when_idle()
        if self.loop.terminated:
            raise ended_for(self.folder.read_why())
        if self._abandoned:
            raise Ending("stopped", "its kernel ended")
        return self.program is not None and self.program.returncode is None

    # Whether it is used.

    @property
    def _idle_limit(self) -> float:
        return config.idle_timeout if self.spec.idle is None else self.spec.idle

    def _watch_load(self, path: str, port: int) -> None:
        """Note when a service is at work, whoever asked it."""
        if not path:
            return
        from lazynb.jobs import load

        self.watch = load.Watch(
            lambda: load.ask(port, path, self.key, LOOK_TIMEOUT),
            min(LOOK, self._idle_limit / 4) if self._idle_limit else LOOK,
            self.folder.mark_used,
        )

    def _end_when_idle(self) -> None:
        """Stop a service that nobody uses.

        Who is about to use it marks it as used, and then reads its state; here the state is written, and then the
        mark is read. So one of the two sees the other, and no request meets a service that ends.
        """
        limit = self._idle_limit
        if not limit or self.record.state.phase != "ready" or self.record.state.port is None:
            return
        used = self.folder.last_used()
        if time.time() - max(used, self.record.state.since) < limit:
            return
        if self.watch is not None and self.watch.busy():
            self.folder.mark_used()
            return
        self.record.enter("stopping", "stopping")
        time.sleep(SETTLE)
        if self.folder.last_used() != used or (self.watch is not None and self.watch.busy()):
            self.record.enter("ready")
            return
        raise idle(limit)

    def _owner_left(self) -> None:
        """Go on without the kernel where the user wants it; else this is the end."""
        self.loop.remove(sys.stdin.fileno())
        self.spec = self.folder.read_spec()
        self._abandoned = not self.spec.keep


def main() -> None:
    """Run the job whose folder is the only argument."""
    Supervisor(JobFolder(Path(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
