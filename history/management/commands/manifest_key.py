"""`manage.py manifest_key`: the key that signs manifests, and what others check them by."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from history.proof.signing import KeyRefused, key_id, load_key, make_key, public_pem


class Command(BaseCommand):
    help = (
        "Make a private key for MANIFEST_KEY at PATH, readable by its owner alone, and print its public key. "
        "Keep the public key, and the manifests, where nobody who can write to the database can change them."
    )
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("path", type=Path)
        parser.add_argument("--show", action="store_true", help="print the public key of one that is there already")

    def handle(self, *args: Any, path: Path, show: bool, **options: Any) -> None:
        try:
            key = load_key(path) if show else make_key(path)
        except FileExistsError:
            raise CommandError(f"{path} is there already; --show prints its public key.") from None
        except KeyRefused as error:
            raise CommandError(f"{error}.") from None
        except OSError as error:
            raise CommandError(f"{path} cannot be written: {error.strerror}.") from None
        self.stderr.write(f"key {key_id(key.public_key())}")
        self.stdout.write(public_pem(key.public_key()), ending="")
