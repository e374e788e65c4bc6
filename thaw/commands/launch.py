"""Several processes of one training on this machine."""

import math
import os
import signal
import socket
import subprocess
import sys
import time

from thaw.run.process import POLL_SECONDS, find_starters, is_alive

# For the others, to notice the end of one by themselves.
PATIENCE_SECONDS = 5


def main(processes: int, program: list[str]) -> None:
    """Starts a command several times, and ends with the first failure.

    Args:
        processes: how many times.
        program: the command.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    job = {
        "KERAS_DISTRIBUTION_JOB_ADDRESSES": address,
        "KERAS_DISTRIBUTION_NUM_PROCESSES": str(processes),
        "JAX_COORDINATOR_BIND_ADDRESS": address,
    }
    programs = []
    starters = find_starters()

    def pass_on(number: int, frame: object) -> None:
        for one in programs:
            one.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pass_on)
    for rank in range(processes):
        # A process has the accelerator of its number, if there are several.
        own = {
            "KERAS_DISTRIBUTION_PROCESS_ID": str(rank),
            "JAX_LOCAL_DEVICE_IDS": str(rank),
        }
        programs.append(
            subprocess.Popen(program, env={**os.environ, **job, **own})
        )
    sys.exit(watch_programs(programs, starters))


def watch_programs(programs: list[subprocess.Popen], starters: list) -> int:
    """Waits for all; ends them when one fails or what started them is gone.

    Returns:
        The first failure's exit status, as shells have it, or 0.
    """
    status, since, told = 0, math.inf, False
    while None in (ended := [program.poll() for program in programs]):
        if not status and any(ended):
            status, since = next(filter(None, ended)), time.monotonic()
        if not all(map(is_alive, starters)):
            since = -math.inf
        waited = time.monotonic() - since
        for program in programs if waited > PATIENCE_SECONDS else ():
            if waited > 2 * PATIENCE_SECONDS:
                program.kill()
            elif not told:
                program.terminate()
        told = waited > PATIENCE_SECONDS
        time.sleep(POLL_SECONDS / 5)
    status = status or next(filter(None, ended), 0)
    return status if status >= 0 else 128 - status
