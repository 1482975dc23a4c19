"""Tabs of a person on the door for notifications, in this process."""

from typing import Any, Self

from realtime.notifications.consumers import NotificationConsumer
from tests.integration.realtime.door_sockets import DoorSocket


class Tab(DoorSocket):
    """One tab. It takes nothing while `reads` is not set."""

    def __init__(self, user: Any = None, *, consumer: type[NotificationConsumer] = NotificationConsumer, **how: Any):
        super().__init__(consumer, {}, user=user, **how)

    async def __aenter__(self) -> Self:
        await self.until_received(1)
        return self

    @property
    def shown(self) -> list[Any]:
        """The messages of all notifications, as they came."""
        return [each["message"] for each in self.received if each["type"] == "notification"]

    @property
    def ids(self) -> list[int]:
        return [each["id"] for each in self.received if each["type"] == "notification"]

    @property
    def read(self) -> list[list[int]]:
        return [each["ids"] for each in self.received if each["type"] == "read"]
