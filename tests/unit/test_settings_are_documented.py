"""A setting that the docs do not list cannot be found by whoever needs it."""

import re
from dataclasses import Field, fields
from pathlib import Path

import pytest

from documents.conf import Conf

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs/operations.md").read_text()


@pytest.mark.parametrize("field", fields(Conf), ids=lambda field: field.name)
def test_every_setting_is_listed_with_its_default(field: Field[object]) -> None:
    assert f"| `{field.name.upper()}` | {field.default} |" in OPERATIONS


def test_every_variable_that_is_read_from_the_environment_is_listed() -> None:
    source = (ROOT / "config/settings.py").read_text()
    read = set(re.findall(r'env\.\w+\(\s*"([A-Z_]+)"', source))
    assert len(read) > 10
    assert [name for name in sorted(read) if f"`{name}`" not in OPERATIONS] == []


def test_nothing_is_listed_that_is_not_there() -> None:
    table = OPERATIONS.split("## Settings of Palimpsest")[1].split("##")[0]
    listed = re.findall(r"^\| `([A-Z_]+)`", table, re.MULTILINE)
    assert listed == [field.name.upper() for field in fields(Conf)]
