"""Whether there is a network."""

import contextlib
import threading
import urllib.error
import urllib.request


def is_online(host: str = "https://storage.googleapis.com") -> bool:
    """Whether a host answers within 10 s, proxies of the environment used.

    A thread, because every address of a host, and its name's lookup, take their
    own time.
    """
    answers = []

    def ask() -> None:
        with contextlib.suppress(OSError):
            with contextlib.suppress(urllib.error.HTTPError):  # an answer
                urllib.request.urlopen(host, timeout=10)
            answers.append(True)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout=10)
    return bool(answers)
