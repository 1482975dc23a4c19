"""Clients of chats, for tests."""

from typing import Any

from asgiref.sync import sync_to_async

from documents.models import Document
from realtime.chat.consumers import ChatConsumer
from realtime.chat.models import ChatMessage
from tests.integration.realtime.door_sockets import DoorSocket


class ChatSocket(DoorSocket):
    """One client in one chat. `said` are the texts of what it has been sent as messages, in order."""

    def __init__(
        self, room: str, *, consumer: type[ChatConsumer] = ChatConsumer, after: int | None = None, **how: Any
    ) -> None:
        query = b"" if after is None else f"after={after}".encode()
        super().__init__(consumer, {"room_name": room}, **{"query": query, **how})

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [each for each in self.received if "type" not in each]

    @property
    def said(self) -> list[str]:
        return [each["message"] for each in self.messages]

    @property
    def errors(self) -> list[str]:
        return [each["code"] for each in self.received if each.get("type") == "error"]

    def say(self, text: str, **more: Any) -> None:
        self.send({"message": text, **more})

    async def until_said(self, *texts: str) -> None:
        await self.until(lambda: self.said == list(texts))

    async def until_in(self) -> "ChatSocket":
        """Wait until the socket stands in its room: a page of its history says so."""
        self.send({"type": "history", "limit": 1})
        await self.until(
            lambda: self.closed is not None or any(each.get("type") == "history" for each in self.received)
        )
        assert self.closed is None, (self.closed, self.reason)
        self.received = [each for each in self.received if each.get("type") != "history"]
        return self


@sync_to_async
def texts_of(document: Document | None = None, *, name: str = "") -> list[str]:
    """What is stored of a document's chat, or of a free room's."""
    of_room = {"room__document": document} if document else {"room__document": None, "room__name": name}
    return list(ChatMessage.objects.filter(**of_room).order_by("pk").values_list("text", flat=True))
