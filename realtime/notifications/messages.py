"""What a notification may say: any JSON but null, of bounded size. Pure but for the setting."""

import json
import re
from typing import Any, TypeAlias

from django.core.serializers.json import DjangoJSONEncoder

from documents.conf import conf

Json: TypeAlias = Any
"""What `json.loads` makes."""

# An escaped NUL, which Postgres refuses, and not an escaped backslash before "u0000".
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


class NotificationInvalid(ValueError):
    """Raised for what cannot be a notification: no JSON, null, or larger than NOTIFICATION_BYTES_MAX."""


def checked(message: Any) -> Json:
    """The message as readers will have it: tuples are lists, keys are texts, times and UUIDs are their texts.

    Raises: NotificationInvalid with a sentence that says what to change, without content."""
    try:
        text = json.dumps(message, ensure_ascii=False, allow_nan=False, cls=DjangoJSONEncoder)
        size = len(text.encode())
        read = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise NotificationInvalid(f"A notification is JSON, which this is not: {type(error).__name__}.") from error
    if read is None or _NUL.search(text):
        raise NotificationInvalid("A notification is neither null nor has it NUL characters.")
    if size > conf().notification_bytes_max:
        raise NotificationInvalid(f"A notification has at most {conf().notification_bytes_max} bytes, not {size}.")
    return read
