"""`python -m config.stack <command>`: run, web, services, test, scratch, manage. The Makefile calls these.

The one place where an error that a person can mend becomes a sentence on standard error and exit code 1.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

from config.stack.children import Child, follow_parent
from config.stack.configuration import PROJECT, base_environment, load_dotenv, read_configuration
from config.stack.errors import StackError, Stopped, sentence_for
from config.stack.folder import DataFolder
from config.stack.services import scratch_services
from config.stack.supervisor import STOP_SIGNALS, StopRequest, Supervisor, say


def run(arguments: Sequence[str]) -> int:
    """The whole stack."""
    Supervisor(read_configuration(os.environ)).run()
    return 0


def web(arguments: Sequence[str]) -> int:
    """The stack without Celery, for a deployment that runs it elsewhere."""
    Supervisor(read_configuration(os.environ), celery=False).run()
    return 0


def services(arguments: Sequence[str]) -> int:
    """Fresh services in the foreground; prints their URLs as lines for a shell."""
    request = _listen_for_stop()
    with scratch_services() as running:
        for key, value in running.environment.items():
            say(f"export {key}='{value}'")
        while not request.asked:
            signal.pause()
    return 0


def scratch(arguments: Sequence[str], *, syncs: bool = True) -> int:
    """Run Python with `arguments` on fresh services that go with it (or TEST_DATABASE_URL, TEST_REDIS_URL)."""
    request = _listen_for_stop()
    given = os.environ.get("TEST_DATABASE_URL", ""), os.environ.get("TEST_REDIS_URL", "")
    with scratch_services(*given, syncs=syncs) as running:
        env = {**base_environment(), **running.environment}
        env.setdefault("SECRET_KEY", "only for tests")
        child = Child("command", [sys.executable, *arguments], env=env, cwd=PROJECT, stop_signal=signal.SIGINT)
        try:
            child.wait(tick=request.tick)
        finally:
            child.stop(request.hurry)
    code = child.exit_code or 0
    return code if code >= 0 else 128 - code


def test(arguments: Sequence[str]) -> int:
    """pytest on fresh services: never the data of `run`."""
    return scratch(["-m", "pytest", *arguments], syncs=False)


def manage(arguments: Sequence[str]) -> int:
    """`manage.py` on the stack that runs."""
    folder = DataFolder(read_configuration(os.environ).data_dir)
    env = {**base_environment(), **folder.read_environment()}
    return subprocess.run([sys.executable, "manage.py", *arguments], env=env, cwd=PROJECT, check=False).returncode


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "run": run,
    "web": web,
    "services": services,
    "scratch": scratch,
    "test": test,
    "manage": manage,
}


def main() -> int:
    name, *arguments = sys.argv[1:] or [""]
    if name not in COMMANDS:
        raise StackError(f"Usage: python -m config.stack {'|'.join(COMMANDS)} [-- arguments]")
    if os.environ.pop("MAKELEVEL", ""):  # a `make run` that is killed takes its stack with it
        follow_parent(signal.SIGTERM, os.getppid())
    load_dotenv()
    return COMMANDS[name](arguments[1:] if arguments[:1] == ["--"] else arguments)


def _listen_for_stop() -> StopRequest:
    request = StopRequest()
    for number in STOP_SIGNALS:
        signal.signal(number, request)
    return request


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StackError as error:
        sentence = str(error)
    except OSError as error:
        sentence = sentence_for(error)
    except (Stopped, KeyboardInterrupt):
        sys.exit(130)
    with contextlib.suppress(OSError):  # nobody may be reading any more
        sys.stderr.write(sentence + "\n")
    sys.exit(1)
