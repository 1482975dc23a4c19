"""A package that nobody pinned is another one tomorrow."""

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"([\w.-]+)(?:\[[\w,-]+\])?==[\w.]+(?:; .+)?")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned_in(*names: str) -> dict[str, str]:
    """Package → the line that pins it. Fails on a line that is no exact pin."""
    lines = [line.partition(" #")[0] for name in names for line in (ROOT / name).read_text().splitlines()]
    pins = {line: PIN.fullmatch(line) for line in lines if line and not line.startswith(("#", "-r "))}
    assert [line for line, pin in pins.items() if pin is None] == []
    return {normal(pin[1]): line for line, pin in pins.items() if pin is not None}


def brought_along_by(package: str) -> Iterator[str]:
    """What an installed package asks for, extras aside, and is installed here."""
    for requirement in requires(package) or []:
        name = re.match(r"[\w.-]+", requirement)
        if name is not None and "extra ==" not in requirement:
            try:
                requires(name[0])
            except PackageNotFoundError:
                continue  # for another system or another Python
            yield normal(name[0])


@pytest.mark.parametrize("files", [["requirements.txt"], ["requirements.txt", "requirements-dev.txt"]], ids=len)
def test_what_a_package_brings_along_is_pinned_too(files: list[str]) -> None:
    pins = pinned_in(*files)
    installed = [package for package, line in pins.items() if "; " not in line]
    missing = {name for package in installed for name in brought_along_by(package)} - set(pins)
    assert missing == set()
