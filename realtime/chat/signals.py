"""What one's own code may listen to."""

from django.dispatch import Signal

chat_message_stored = Signal()
"""A chat message is stored, in the transaction that stores it: `room` (its name), `message` (ChatMessage), `author` (a
user, or None), `document` (Document, or None for a free room). What a receiver raises undoes the message."""
