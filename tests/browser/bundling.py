"""Front ends made of what docs/clients.md shows: bundled by esbuild with the real packages of tests/editors."""

import asyncio
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.clients.driver import install_packages, node_binary

EDITORS = Path(__file__).resolve().parent.parent / "editors"
BUNDLE_SECONDS = 60.0


class BundleError(Exception):
    """esbuild refused the source; the message is its own."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A script for a page, and the styles that it imports."""

    script: str
    styles: str


async def bundle_of(source: str, aliases: Mapping[str, str] | None = None) -> Bundle:
    """Bundle a module that imports packages by name, some of them by an alias: name → the package that is meant.

    Raises: BundleError, NodeError."""
    return await asyncio.to_thread(_bundle_of, source, aliases or {})


def _bundle_of(source: str, aliases: Mapping[str, str]) -> Bundle:
    install_packages(EDITORS)
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "page.js"
        done = subprocess.run(
            [
                str(node_binary()),
                str(EDITORS / "node_modules" / "esbuild" / "bin" / "esbuild"),
                "--bundle",
                "--format=iife",
                "--log-level=warning",
                f"--outfile={script}",
                *(f"--alias:{name}={meant}" for name, meant in aliases.items()),
            ],
            input=source,
            cwd=EDITORS,
            capture_output=True,
            text=True,
            timeout=BUNDLE_SECONDS,
            check=False,
        )
        if done.returncode != 0 or done.stderr:
            raise BundleError(done.stderr)
        styles = script.with_suffix(".css")
        return Bundle(script.read_text(), styles.read_text() if styles.exists() else "")
