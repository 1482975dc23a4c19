"""The application that writes down each load of a document from the log: a line in the file LOADS_FILE."""

import os
from functools import wraps
from typing import Any
from unittest.mock import patch

from config.asgi import application
from history.folds import make_ydoc
from realtime import hub

__all__ = ["application"]


@wraps(make_ydoc)
def _counted(document_id: int, **options: Any) -> Any:
    with open(os.environ["LOADS_FILE"], "a") as file:
        file.write(f"{os.getpid()} {document_id}\n")
    return make_ydoc(document_id, **options)


patch.object(hub, "make_ydoc", _counted).start()
