"""Starts `liit` in processes of their own within milliseconds: the libraries are loaded once, then it forks.

Run as a script. It reads one JSON object per line and answers with one:

    {"do": "start", "arguments": [...], ...}  ->  {"pid": 123}
    {"do": "wait", "pid": 123}                ->  {"code": -9}

What is started is the program itself, from its command line to its exit code, in a process that can be killed,
limited and looked at like any other. Nothing of liit has run before the fork, only its modules are loaded.
"""

from __future__ import annotations

import atexit
import json
import os
import resource
import signal
import sys
import traceback
import warnings
from typing import Any, NoReturn

SECONDS = 300
"""A command that takes longer hangs: the system ends it with SIGALRM."""

SMALL_SHARDS = 16
"""Rows per shard of an extraction, so that forty rows make several commits."""


def load() -> None:
    """Import what the stages import, so that a forked process does not have to."""
    import accelerate  # noqa: F401
    import lance.fragment  # noqa: F401
    import peft  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import torch
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor, Trainer, TrainingArguments  # noqa: F401
    from transformers.models.clip import modeling_clip  # noqa: F401
    from transformers.models.llama import modeling_llama  # noqa: F401
    from transformers.models.llava import modeling_llava, processing_llava  # noqa: F401

    import liit.report  # noqa: F401
    from liit.cli import lists, runs, stage_commands  # noqa: F401
    from liit.features import extraction
    from liit.lifelong import loop  # noqa: F401

    assert isinstance(extraction.SHARD_ROWS, int)
    extraction.SHARD_ROWS = SMALL_SHARDS
    torch.set_num_threads(1)
    Image.init()


def start(request: dict[str, Any]) -> int:
    """Fork a process that does what a request says; its id."""
    # Opened before the fork, so that who reads them finds a writer there.
    streams = [os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for name in ("out", "err")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lance warns of forks; it has not done anything here that would not survive
        pid = os.fork()
    if pid == 0:
        become(request, *streams)
    for stream in streams:
        os.close(stream)
    return pid


def become(request: dict[str, Any], out: int, errors: int) -> NoReturn:
    """Be the command from now on."""
    code = 1
    try:
        signal.alarm(SECONDS)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for given, stream in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (errors, 2)):
            os.dup2(given, stream)
            os.close(given)
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        if request["file_size"] is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_size"], request["file_size"]))
        if request["before"]:
            import faults_inside

            getattr(faults_inside, request["before"][0])(*request["before"][1:])
        sys.argv = ["liit", *request["arguments"]]
        from liit.cli import main

        main()
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        if request["before"]:
            atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                code = code or 1
        os._exit(code)


def serve() -> None:
    """Answer requests until there are none."""
    load()
    channel = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "start":
            answer: dict[str, int] = {"pid": start(request)}
        else:
            _, status = os.waitpid(request["pid"], 0)
            answer = {"code": os.waitstatus_to_exitcode(status)}
        print(json.dumps(answer), file=channel, flush=True)


if __name__ == "__main__":
    serve()
    os._exit(0)  # there is nothing to put in order, and torch would take its time to do so
