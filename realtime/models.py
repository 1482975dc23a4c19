"""The tables of this floor. The folders define them; Django looks for them here."""

from realtime.chat.models import ChatMessage, ChatRoom

__all__ = ["ChatMessage", "ChatRoom"]
