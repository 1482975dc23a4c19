// A Yjs document that collects nothing, and moments of it opened by their snapshots: what `make bench-history` compares.
// Reads {log, moments} from stdin: a file of updates, each with its length (4 bytes, little-endian) before it, and seqs.
import fs from "node:fs";
import * as Y from "yjs";

const { log, moments } = JSON.parse(fs.readFileSync(0, "utf8"));
const bytes = fs.readFileSync(log);
const wanted = new Set(moments);
const doc = new Y.Doc({ gc: false });
const snapshots = [];
for (let position = 0, seq = 1; position < bytes.length; seq++) {
  const length = bytes.readUInt32LE(position);
  Y.applyUpdate(doc, bytes.subarray(position + 4, position + 4 + length));
  position += 4 + length;
  if (wanted.has(seq)) snapshots.push(Y.encodeSnapshot(Y.snapshot(doc)));
}
const state = Y.encodeStateAsUpdate(doc);
const opened = snapshots.map((snapshot) => {
  const started = performance.now();
  const stored = new Y.Doc({ gc: false });
  Y.applyUpdate(stored, state);
  Y.createDocFromSnapshot(stored, Y.decodeSnapshot(snapshot)).getText("content").toString();
  return performance.now() - started;
});
const snapshotBytes = snapshots.reduce((sum, snapshot) => sum + snapshot.length, 0);
console.log(JSON.stringify({ state_bytes: state.length, snapshot_bytes: snapshotBytes, opened_ms: opened }));
