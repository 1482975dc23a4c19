"""Frames written by yjs 13.6.33, y-protocols 1.0.7 and lib0 0.2.120 in Node, as hex.

`doc` is client 4294967295, who wrote `Grüße 😀` into the text `body` and then took in 200 letters of client 1,
`other`; `empty` is a new document. What was written to a new encoder `e` each time:
  writeVarUint(e, 0); writeSyncStep1(e, doc)
  writeVarUint(e, 0); writeSyncStep2(e, doc, encodeStateVector(other))
  writeVarUint(e, 0); writeUpdate(e, firstUpdate)
  writeVarUint(e, 1); writeVarUint8Array(e, encodeAwarenessUpdate(awareness, clientIds))
  writeVarUint(e, 2); writePermissionDenied(e, 'read-only: größer')
  writeVarUint(e, 3)"""

UPDATE = bytes.fromhex("0101ffffffff0f00040104626f64790c4772c3bcc39f6520f09f988000")

SYNC_STEP_1_EMPTY = bytes.fromhex("00000100")
SYNC_STEP_1 = bytes.fromhex("00000a02ffffffff0f0801c801")
SYNC_STEP_2 = bytes.fromhex("00011d0101ffffffff0f00040104626f64790c4772c3bcc39f6520f09f988000")
SYNC_STEP_2_EMPTY = bytes.fromhex("0001020000")
SYNC_UPDATE = bytes.fromhex("00021d0101ffffffff0f00040104626f64790c4772c3bcc39f6520f09f988000")

AWARENESS_STATE = (
    '{"user":{"name":"Zoë","color":"#30bced"},"cursor":{"anchor":null,"x":1e+21,"y":1e-7}}'  # of client 4294967295
)
AWARENESS_TWO_CLIENTS = bytes.fromhex(
    "0163020100027b7dffffffff0f01567b2275736572223a7b226e616d65223a225a6fc3ab222c22636f6c6f72223a2223333062636564227d2c"
    "22637572736f72223a7b22616e63686f72223a6e756c6c2c2278223a31652b32312c2279223a31652d377d7d"
)
AWARENESS_LEFT = bytes.fromhex("010c01ffffffff0f02046e756c6c")
AWARENESS_NONE = bytes.fromhex("010100")
QUERY_AWARENESS = bytes.fromhex("03")
PERMISSION_DENIED = bytes.fromhex("020013726561642d6f6e6c793a206772c3b6c39f6572")
