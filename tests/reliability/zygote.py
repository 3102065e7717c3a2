# ruff: noqa: F401 - what a command would import first is loaded here
"""Runs command lines of flexunet in forked processes: each is a process of its own, but imports nothing again.

A line of JSON on standard input starts one, and its process id is written back; a process id alone waits for it, and
its exit status is written back.
"""

import json
import logging
import os
import sys
import traceback


def run(job):
    """Run a job in this process, which was forked for it."""
    os.setsid()
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(job["log"] + "." + name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(job["cwd"])
    os.environ.update(job["env"])
    status = 1
    try:
        import torch

        from flexunet_pl.cli.main import main

        torch.set_num_threads(1)
        exec(job["before"], {})  # noqa: S102 - of the tests
        status = main(job["args"])
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        traceback.print_exc()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":  # not in the workers that a command spawns, which run this file too
    import torch

    import flexunet_pl.callbacks
    import flexunet_pl.cli.lightning
    import flexunet_pl.commands.check
    import flexunet_pl.commands.export
    import flexunet_pl.commands.import_keras
    import flexunet_pl.commands.report
    import flexunet_pl.commands.score
    import flexunet_pl.commands.split
    import flexunet_pl.data.datamodule
    from flexunet_pl.cli.main import main

    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while line := sys.stdin.readline():
        if line.strip().isdigit():
            _, state = os.waitpid(int(line), 0)
            answer = os.waitstatus_to_exitcode(state)
        elif (answer := os.fork()) == 0:
            run(json.loads(line))
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()
