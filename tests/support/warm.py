"""Processes that start warm: forked from one that has loaded torch, transformers and Snakemake.

Most of a job of a tiny model is the start of Python and of these libraries. A server loads them
once, without this package; a process that is asked of it is a fork, in a session, folder and
environment of its own, which runs the same code as a cold one from there on. What is asked with
other settings of these libraries (`SETTINGS`) than the server was started with runs cold.

`python` (a path) stands in for the interpreter: it forwards `-m snakemake` and the scripts of
`WARM` to the server, and becomes the interpreter itself for everything else.
"""

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import time
from functools import cache
from importlib.util import find_spec
from pathlib import Path

# What the scripts of `WARM` import before their first statement, and the command of Snakemake.
LOADED = (
    "torch",
    "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "pandas",
    "pyarrow.parquet",
    "snakemake.cli",
    "snakemake.script",
)
WARM = (
    "collect_statistics",
    "describe_neurons",
    "evaluate_task",
    "fall_back",
    "finetune",
    "force_language",
    "measure_lss",
    "measure_perplexity",
    "pack_corpus",
    "prepare_mask",
    "prepare_model",
    "quantize_model",
    "read_layers",
)
SETTINGS = ("HF_", "TRANSFORMERS_", "TORCH_", "CUDA_", "SNAKEMAKE_")
LATE = ("HF_TOKEN",)  # read when it is needed
SERVER = "LANGNEURONS_WARM_SERVER"
SHIM = """#!{python} -SE
import os, sys
sys.path.insert(0, {folder!r})
import warm
sys.exit(warm.ask({server!r}, {python!r}, sys.argv[1:], os.path.abspath(__file__)))
"""


@cache
def python() -> str:
    """Return the path of the interpreter that starts warm; its server ends with this process.

    Without torch it is the interpreter itself.
    """
    if find_spec("torch") is None:
        return sys.executable
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    server, shim = folder / "socket", folder / "python"
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    process = subprocess.Popen(
        [sys.executable, __file__, str(server)],
        stdin=subprocess.PIPE,
        cwd=folder,
        env=os.environ | threads,
    )
    atexit.register(process.communicate)  # closes its standard input
    while not server.exists():
        if process.poll() is not None:
            raise RuntimeError("the server of warm processes did not start")
        time.sleep(0.05)
    shim.write_text(
        SHIM.format(python=sys.executable, folder=str(Path(__file__).parent), server=str(server))
    )
    shim.chmod(shim.stat().st_mode | stat.S_IXUSR)
    return str(shim)


# The stand-in -----------------------------------------------------------------------------------


def ask(server: str, interpreter: str, arguments: list[str], shim: str) -> int:
    """Run what an interpreter is asked to, forked from the server; return its exit code."""
    if not _is_warm(arguments):
        os.execv(interpreter, [interpreter, *arguments])
    message = {"arguments": arguments, "folder": os.getcwd(), "shim": shim}
    message["environment"] = dict(os.environ)
    text = json.dumps(message).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(server)
        socket.send_fds(connection, [struct.pack("!I", len(text))], [0, 1, 2])
        connection.sendall(text)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _frame: connection.send(bytes([number])))
        said = connection.recv(4)
    if len(said) < 4:
        return 1
    (code,) = struct.unpack("!i", said)
    if code == COLD:
        os.execv(interpreter, [interpreter, *arguments])
    if code < 0:  # ended by a signal
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


COLD = 1000


def _is_warm(arguments: list[str]) -> bool:
    if arguments[:2] == ["-m", "snakemake"]:
        return True
    name = os.path.basename(arguments[0]) if arguments else ""
    return name.removesuffix(".py").partition(".")[2] in WARM


# The server -------------------------------------------------------------------------------------


def serve(path: str) -> None:
    """Load the libraries, then fork a process for each connection until standard input ends."""
    import gc
    from importlib import import_module

    for name in LOADED:
        import_module(name)
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path + ".new")
        listening.listen(64)
        os.rename(path + ".new", path)
        while True:
            ready, _, _ = select.select([listening, sys.stdin], [], [], 1.0)
            _collect_ended()
            if sys.stdin in ready:
                return
            if listening not in ready:
                continue
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                _supervise(connection)
                os._exit(0)
            connection.close()


def _collect_ended() -> None:
    """Take the processes that have ended, so that what they used counts as the server's."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def _supervise(connection: socket.socket) -> None:
    """Fork the process that was asked for; end it when the one that asked is gone."""
    head, files, _, _ = socket.recv_fds(connection, 4, 3)
    (size,) = struct.unpack("!I", head)
    text = b""
    while len(text) < size:
        text += connection.recv(size - len(text))
    asked = json.loads(text)
    if _settings(os.environ) != _settings(asked["environment"]):
        connection.sendall(struct.pack("!i", COLD))
        return
    child = os.fork()
    if child == 0:
        connection.close()
        _become(asked, files)
    for file in files:
        os.close(file)
    ended = os.pidfd_open(child)
    while True:
        ready, _, _ = select.select([connection, ended], [], [])
        if ended in ready:
            break
        given = connection.recv(1)
        if given:
            os.kill(child, given[0])
        else:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    connection.sendall(struct.pack("!i", code))


def _settings(environment: dict[str, str] | os._Environ) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(SETTINGS) and name not in LATE
    }


def _become(asked: dict, files: list[int]) -> None:
    """Run what was asked for in this process, as a new interpreter would, and end it."""
    import runpy
    import traceback

    os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", 1)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    first, *rest = asked["arguments"]
    own = [one for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if one]
    here = os.getcwd() if first == "-m" else os.path.dirname(os.path.abspath(first))
    sys.path[:1] = [here, *own]
    sys.executable = asked["shim"]
    if threads := os.environ.get("OMP_NUM_THREADS"):  # what a new process reads at its start
        sys.modules["torch"].set_num_threads(int(threads))
    code = 0
    try:
        if first == "-m":
            sys.argv = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = [first, *rest]
            exec(compile(Path(first).read_bytes(), first, "exec"), _main(first))
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        if sys.excepthook is sys.__excepthook__:
            traceback.print_exc()
        else:
            sys.excepthook(*sys.exc_info())
        code = 1
    import threading

    threading._shutdown()  # waits for threads, as an interpreter does at its end
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _main(path: str) -> dict:
    """Return the names of the module `__main__` of a script."""
    import types

    module = types.ModuleType("__main__")
    module.__file__ = path
    sys.modules["__main__"] = module
    return vars(module)


if __name__ == "__main__":
    serve(sys.argv[1])
