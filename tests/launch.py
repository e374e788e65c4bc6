"""Two processes of one training, as a launcher of a cluster starts them."""

import math
import os
import signal
import socket
import subprocess
import sys
import time

from thaw.run.process import POLL_SECONDS, find_starters, is_alive

# The other processes have this long to notice that one has ended, and to end by
# themselves.
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
    programs: list[subprocess.Popen] = []
    starters = find_starters()

    def pass_on(number: int, frame: object) -> None:
        for started in programs:
            started.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pass_on)
    for rank in range(processes):
        # Of several accelerators each process takes the one of its number.
        own = {
            "KERAS_DISTRIBUTION_PROCESS_ID": str(rank),
            "JAX_LOCAL_DEVICE_IDS": str(rank),
        }
        programs.append(
            subprocess.Popen(program, env={**os.environ, **job, **own})
        )
    sys.exit(watch_programs(programs, starters))


def watch_programs(programs: list[subprocess.Popen], starters: list) -> int:
    """Waits for all; ends them when one fails or a process above is gone.

    Args:
        programs: the processes.
        starters: the processes that started this one.

    Returns:
        The exit status of the first failure, as a shell gives it, or 0.
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


if __name__ == "__main__":
    main(2, sys.argv[1:])
