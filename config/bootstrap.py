"""Makes .venv, fills it from the exact pins, and becomes the Python in it: `bootstrap.py run|dev <python arguments>`.

Standard library only, and nothing that Python 3.6 cannot parse: an old Python must be able to say that it is too old.
A second start compares one stamp and calls no pip; an environment that was left half-made is made anew.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ENVIRONMENT = os.path.join(PROJECT, ".venv")
PYTHON = os.path.join(ENVIRONMENT, "bin", "python")
STAMP = os.path.join(ENVIRONMENT, "requirements.stamp")
UNFINISHED = os.path.join(ENVIRONMENT, "unfinished")
LOG = os.path.join(ENVIRONMENT, "pip.log")
FILES = {"run": ("requirements.txt",), "dev": ("requirements.txt", "requirements-dev.txt")}
SUPPORTED = ((3, 11), (3, 12), (3, 13))


def main() -> None:
    if len(sys.argv) < 3 or sys.argv[1] not in FILES:
        fail("Usage: bootstrap.py run|dev <python arguments>")
    use_supported_python()
    os.chdir(PROJECT)
    target = sys.argv[1]
    try:
        # One start at a time may fill the environment. The folder itself is the lock: no file to leave behind.
        folder = os.open(PROJECT, os.O_RDONLY)
        fcntl.flock(folder, fcntl.LOCK_EX)
        if not is_filled(target):
            fill(target)
        os.close(folder)
    except OSError as error:
        fail(f"Cannot make {error.filename or ENVIRONMENT}: {error.strerror}.")
    os.execv(PYTHON, [PYTHON, *sys.argv[2:]])


def use_supported_python() -> None:
    """Return on a supported Python; become one that is on PATH otherwise; else say so and end."""
    version = sys.version_info[:2]
    if version in SUPPORTED:
        return
    for major, minor in reversed(SUPPORTED):
        other = shutil.which(f"python{major}.{minor}")
        # Run once: a version switcher leaves names on PATH behind which there is no Python.
        if other and subprocess.call([other, "-c", ""], stderr=subprocess.DEVNULL) == 0:
            os.execv(other, [other, *sys.argv])
    found = f"{sys.executable} is {version[0]}.{version[1]}"
    fail(f"Palimpsest needs Python 3.11, 3.12 or 3.13, but {found}: install one, or name it: make PYTHON=<path>")


def fingerprint(target: str) -> str:
    """What an environment for `target` was made from: the pins and the Python."""
    digest = hashlib.sha256(sys.version.encode())
    for name in FILES[target]:
        with open(os.path.join(PROJECT, name), "rb") as file:
            digest.update(file.read())
    return f"{target} {digest.hexdigest()}"


def is_filled(target: str) -> bool:
    """Whether .venv works and has what `target` needs; one for `dev` serves `run` too."""
    if not os.path.exists(STAMP) or os.path.exists(UNFINISHED) or not works():
        return False
    with open(STAMP) as file:
        return fingerprint(target) in file.read().splitlines()


def works() -> bool:
    """Whether the environment's interpreter is there and of this version (a system upgrade may have taken it away)."""
    asked = f"import sys; sys.exit(sys.version_info[:2] != {tuple(sys.version_info[:2])!r})"
    try:
        return subprocess.call([PYTHON, "-c", asked], stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def fill(target: str) -> None:
    """Install the pins of `target`; `unfinished` stands in .venv meanwhile: pip takes half a package for a whole."""
    if os.path.exists(UNFINISHED) or not works():
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        make_environment()
    with open(UNFINISHED, "w"):
        pass
    say(f"Installing {FILES[target][-1]} into .venv (once; about half a minute) ...")
    install(os.path.join(PROJECT, FILES[target][-1]))
    with open(STAMP, "w") as file:
        file.write("\n".join(fingerprint(name) for name in FILES if set(FILES[name]) <= set(FILES[target])))
    os.remove(UNFINISHED)


def make_environment() -> None:
    say("Making .venv with Python {}.{}.{} ...".format(*sys.version_info[:3]))
    command = [sys.executable, "-m", "venv", ENVIRONMENT]
    if not has("ensurepip"):
        if not has("pip"):
            fail(
                "This Python lacks ensurepip, which fills a virtual environment: "
                "on Debian or Ubuntu run `apt install python3-venv` first."
            )
        command.append("--without-pip")
    made = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if made.returncode != 0:
        output = made.stdout.decode(errors="replace")
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        fail(reason("The virtual environment", output))


def install(requirements: str) -> None:
    """By `python -m pip`: the pip script's first line cannot hold a path with spaces."""
    if subprocess.call([PYTHON, "-c", "import pip"], stderr=subprocess.DEVNULL) == 0:
        pip = [PYTHON, "-m", "pip"]
    else:
        pip = [sys.executable, "-m", "pip", "--python", PYTHON]
    command = [*pip, "install", "--disable-pip-version-check", "--no-input", "-r", requirements]
    with open(LOG, "wb") as log:
        code = subprocess.call(command, stdout=log, stderr=subprocess.STDOUT)
    if code != 0:
        with open(LOG, "rb") as log:
            fail(reason("Installing the requirements", log.read().decode(errors="replace")))


def reason(what: str, output: str) -> str:
    """Say in one sentence why a step failed, from what it wrote."""
    if "No space left on device" in output or "Disk quota exceeded" in output:
        return f"The disk is full: {what.lower()} needs about 600 MB in {ENVIRONMENT}."
    if "NewConnectionError" in output or "ConnectTimeout" in output or "NameResolutionError" in output:
        return f"{what} failed: the package index cannot be reached from here."
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines or ["no reason was given"]
    return f"{what} failed: {errors[-1]}"


def has(module: str) -> bool:
    """Whether this Python has `module`, asked from outside this folder."""
    return subprocess.call([sys.executable, "-I", "-c", "import " + module], stderr=subprocess.DEVNULL) == 0


def say(sentence: str) -> None:
    sys.stdout.write(sentence + "\n")
    sys.stdout.flush()


def fail(sentence: str) -> None:
    sys.stderr.write(sentence + "\n")
    sys.exit(1)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
