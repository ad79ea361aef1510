"""The batches of a training, made ahead of its loop by processes of their own.

Jittor holds Python's lock while it computes, so threads beside it stand still; processes do not.
Worker k of n makes steps first + k, first + k + n, ... and holds a finished one in its pipe until
the loop takes it: every number is what the loop would have made itself, for any n.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import signal
import time
import warnings
from multiprocessing.connection import Connection
from multiprocessing.pool import ExceptionWithTraceback
from typing import Callable, Iterable, Iterator, List, Optional, Tuple

from jseg.counting import counted
from jseg.machine import mpirun
from jseg.machine.facts import RuntimeProblem, cores
from jseg.training import distributed
from jseg.training.loop import Batches

MOST_WORKERS = 8  # by default; each holds the batch of one step
WATCHED_STEPS, MUCH = 50, 0.2  # after which waiting is judged; a fraction of the time
REMEDY = "give the same command with a smaller --num_workers (0: none), or smaller images"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # that are for the loop alone
PIPE_BYTES = 1 << 20  # of a pipe, as far as the system allows; its own 64 KiB cost switches

Parts = List[Tuple[object, float]]


class LoadingError(Exception):
    """The batch of a step could not be made, and nothing of the step was taken.

    step: the last that was finished; error: why, as an exception for the user.
    """

    def __init__(self, step: int, error: BaseException):
        super().__init__(step, error)
        self.step, self.error = step, error

    def __str__(self) -> str:
        return str(self.error)


def default_workers(device: str) -> int:
    """How many workers a training process has unless told: on CUDA a core each but for the loop's,
    8 at most; on the CPU, where the network computes on all cores, one, or none without a core.
    """
    spare = cores() // mpirun.local_size() - 1
    least, most = (1, MOST_WORKERS) if device == "cuda" else (0, 1)
    return max(least, min(most, spare))


class Loader:
    """`batches` made by `workers` processes for the `steps` of a loop, which asks for them in
    order; with 0 workers they are made when they are asked for.

    Called with a step, it gives the step's micro-batches as a list, the same one however often that
    is asked for: images are read once where several networks look at them. waited: seconds that the
    loop has spent here; `say` gets a line where that is much and more workers may help. `with
    Loader(...)` starts and ends the workers. Raises LoadingError.
    """

    def __init__(
        self,
        batches: Batches,
        steps: range,
        workers: int = 0,
        say: Callable[[str], None] = lambda line: None,
    ):
        self.batches, self.steps, self.say = batches, steps, say
        self.workers = min(workers, len(steps))
        self.waited, self.begun = 0.0, 0.0
        self._step: Optional[int] = None
        self._parts: Parts = []
        self._processes: List[multiprocessing.Process] = []
        self._pipes: List[Connection] = []

    def __enter__(self) -> "Loader":
        try:
            for number in range(self.workers):
                self._start(number)
        except OSError as error:
            self.__exit__()
            self.workers = 0
            self.say(f"no worker processes ({error.strerror}): the training makes its own batches")
        except BaseException:  # a second Ctrl-C
            self.__exit__()
            raise
        return self

    def _start(self, number: int) -> None:
        # A fork shares the data set's memory; nothing that Jittor does is touched in it.
        fork = multiprocessing.get_context("fork")
        ours, theirs = fork.Pipe(duplex=False)
        _widen(theirs)
        self._pipes.append(ours)
        steps = self.steps[number :: self.workers]
        arguments = (self.batches, steps, theirs, list(self._pipes))
        process = fork.Process(target=_work, args=arguments)
        with theirs, _signals_later(), warnings.catch_warnings():
            # Python 3.12 warns of locks that other threads hold; ours wait for work.
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
            self._processes.append(process)

    def __exit__(self, *exception) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        for pipe in self._pipes:
            pipe.close()
        self._processes, self._pipes = [], []

    def __call__(self, step: int) -> Parts:
        if step != self._step:
            begun = time.perf_counter()
            self._parts, self._step = [], None  # gives the memory of the step before back
            self._parts, self._step = self._made(step), step
            self._watch(step, begun)
        return self._parts

    def check(self, step: int) -> None:
        """Make the batch of the step, if there is one, in every process of the run; where one could
        not, all raise its LoadingError and can save together.
        """
        if step not in self.steps:
            return
        failure = None
        try:
            self(step)
        except LoadingError as error:
            if distributed.world_size() == 1:
                raise
            failure = LoadingError(step, _sendable(error.error))
        flag = {"failed": float(failure is not None)}
        if distributed.all_reduce_numbers(flag)["failed"]:
            raise next(filter(None, distributed.gather(failure)))

    def _watch(self, step: int, begun: float) -> None:
        """Add up the waiting after the first step, for which nobody could be ahead."""
        done, ended = self.steps.index(step), time.perf_counter()
        if done == 0:
            self.begun = ended
            return
        self.waited += ended - begun
        fraction = self.waited / (ended - self.begun)
        if done == WATCHED_STEPS and fraction > MUCH and self.workers < cores() - 1:
            self.say(
                f"the training waits {fraction:.0%} of its time for batches, which "
                f"{counted(self.workers, 'worker[s] [makes|make]')}: give --num_workers "
                f"{min(2 * self.workers + 1, cores() - 1)}"
            )

    def _made(self, step: int) -> Parts:
        if not self._pipes:
            try:
                return list(self.batches(step))
            except Exception as error:
                raise LoadingError(step, error) from None

        number = self.steps.index(step) % self.workers
        try:
            error, parts = _receive(self._pipes[number])
        except (EOFError, OSError):
            self._processes[number].join()
            raise LoadingError(step, _death(self._processes[number].exitcode)) from None
        if error is not None:
            raise LoadingError(step, error)
        return parts


@contextlib.contextmanager
def _signals_later() -> Iterator[None]:
    """Hold the signals back that a fork must not get before it ignores them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(batches: Batches, steps: Iterable[int], pipe: Connection, inherited) -> None:
    """What a worker does: send (None, parts) of each step, or (why not, None) and end."""
    # The loop ends its workers: a Ctrl-C is for it alone, and it finishes its step first.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    # Without our copies of the other ends, a write fails once the loop is gone.
    for end in inherited:
        end.close()

    with contextlib.suppress(BrokenPipeError):
        for step in steps:
            error, parts = None, None
            try:
                parts = list(batches(step))
            except MemoryError:
                error = RuntimeProblem(f"a worker process has no memory for a batch; {REMEDY}")
            except Exception as problem:
                error = ExceptionWithTraceback(_sendable(problem), problem.__traceback__)
            _send(pipe, error, parts)
            if error is not None:
                return


def _send(pipe: Connection, error: object, parts: Optional[Parts]) -> None:
    """Send both, the arrays' bytes as they lie in memory behind the rest."""
    buffers: List[pickle.PickleBuffer] = []
    message = pickle.dumps((error, parts), protocol=5, buffer_callback=buffers.append)
    pipe.send((message, len(buffers)))
    for buffer in buffers:
        pipe.send_bytes(buffer.raw())


def _receive(pipe: Connection) -> Tuple[Optional[Exception], Parts]:
    message, count = pipe.recv()
    return pickle.loads(message, buffers=[bytearray(pipe.recv_bytes()) for _ in range(count)])


def _sendable(error: BaseException) -> BaseException:
    """The error as it is where pickle can copy it, else its text."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


def _death(code: Optional[int]) -> RuntimeProblem:
    how = f"was killed by signal {-code}" if code and code < 0 else f"ended with status {code}"
    return RuntimeProblem(
        f"a worker process that makes batches {how}, perhaps for want of memory; {REMEDY}"
    )


def _widen(pipe: Connection) -> None:
    """Give the pipe more room, where the system has such a call and allows it."""
    try:
        import fcntl

        fcntl.fcntl(pipe.fileno(), getattr(fcntl, "F_SETPIPE_SZ", 1031), PIPE_BYTES)
    except (ImportError, OSError):
        pass
