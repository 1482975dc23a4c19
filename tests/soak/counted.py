"""The application with a window into each worker: twice a second it writes down what it holds. For the soak alone."""

import asyncio
import json
import os
import threading
from pathlib import Path
from typing import Any

from config.asgi import application as _application
from realtime.hub import current_hub

FOLDER_VARIABLE = "SOAK_COUNTS_FOLDER"
INTERVAL_SECONDS = 0.5

_windows: set["asyncio.Task[None]"] = set()


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "lifespan":
        await _application(scope, receive, send)
        return
    _windows.add(asyncio.create_task(_tell(Path(os.environ[FOLDER_VARIABLE]))))
    while (message := await receive())["type"] != "lifespan.shutdown":
        await send({"type": f"{message['type']}.complete"})
    await send({"type": "lifespan.shutdown.complete"})


async def _tell(folder: Path) -> None:
    """Write `<pid>.json`, whole at any moment."""
    draft, told = folder / f"{os.getpid()}.draft", folder / f"{os.getpid()}.json"
    while True:
        rooms = current_hub().rooms.values()
        counts = {
            "tasks": len(asyncio.all_tasks()),
            "threads": threading.active_count(),
            "thread_names": [thread.name for thread in threading.enumerate()],
            "rooms": len(rooms),
            "sockets": sum(len(room.members) for room in rooms),
        }
        draft.write_text(json.dumps(counts))
        draft.replace(told)
        await asyncio.sleep(INTERVAL_SECONDS)
