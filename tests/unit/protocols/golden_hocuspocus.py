"""Frames of the real Hocuspocus packages.

What its providers write is recorded (`tests/clients/hocuspocus_recorder.mjs`). What its server writes was taken once
from `OutgoingMessage` of @hocuspocus/server 4.7.0, in Node, for the document `Grüße/1`, the texts `größer` and `Grüße`,
and a document that holds nothing but `UPDATE`."""

import json
from pathlib import Path

ADDRESS = "Grüße/1"
SESSION_ADDRESS = "Grüße/1\0k3j2h1"
UPDATE = bytes.fromhex("0101ffffffff0f00040104626f64790c4772c3b6c39f6520f09f988000")

PROVIDERS: dict[str, dict[str, list[bytes]]] = {
    provider: {what: [bytes.fromhex(frame) for frame in frames] for what, frames in said.items()}
    for provider, said in json.loads(Path(__file__).with_name("golden_hocuspocus_frames.json").read_text()).items()
}

READ_WRITE = bytes.fromhex("094772c3bcc39f652f3102020a726561642d7772697465")
READONLY = bytes.fromhex("094772c3bcc39f652f31020208726561646f6e6c79")
DENIED = bytes.fromhex("094772c3bcc39f652f310201086772c3b6c39f6572")
TOKEN_WANTED = bytes.fromhex("094772c3bcc39f652f310200")
SAVED = bytes.fromhex("094772c3bcc39f652f310801")
NOT_SAVED = bytes.fromhex("094772c3bcc39f652f310800")
CLOSED = bytes.fromhex("094772c3bcc39f652f3107086772c3b6c39f6572")
STATELESS = bytes.fromhex("094772c3bcc39f652f3105074772c3bcc39f65")
SYNC_STEP_1 = bytes.fromhex("094772c3bcc39f652f3100000701ffffffff0f08")
SYNC_UPDATE = bytes.fromhex("094772c3bcc39f652f3100021d0101ffffffff0f00040104626f64790c4772c3b6c39f6520f09f988000")
