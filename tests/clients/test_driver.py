"""The driver itself, proven against a relay of 100 lines: what fails elsewhere with it is then the server's doing."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pycrdt
import pytest

from tests.clients.driver import HERE, Client, NodeClients, NodeError, install_packages, node_binary

EMOJI_FAMILY = "👩‍👩‍👧"


@dataclass(frozen=True, slots=True)
class Relay:
    """A running relay.mjs."""

    port: int

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    def handshakes(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=10) as response:
            seen: list[dict[str, Any]] = json.load(response)
        return seen


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    install_packages()
    process = await asyncio.create_subprocess_exec(
        str(node_binary()),
        str(HERE / "relay.mjs"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    yield Relay(port=int(await asyncio.wait_for(process.stdout.readline(), 20)))
    process.stdin.close()
    await asyncio.wait_for(process.wait(), 10)


@pytest.fixture
async def node() -> AsyncIterator[NodeClients]:
    async with NodeClients() as running:
        yield running


async def joined(node: NodeClients, relay: Relay, *names: str, room: str = "room") -> list[Client]:
    clients = [await node.open(name, url=relay.url, room=room, max_backoff_ms=200) for name in names]
    for client in clients:
        await client.wait_synced()
    return clients


async def test_three_clients_converge_on_random_concurrent_edits_of_every_root(node: NodeClients, relay: Relay) -> None:
    clients = await joined(node, relay, "ann", "ben", "cem")

    made = await asyncio.gather(*(one.random(seed=seed, count=250) for seed, one in enumerate(clients)))
    await node.converged(*clients)

    assert made == [250, 250, 250]
    content = await clients[0].content()
    assert {root["kind"] for root in content.roots.values()} == {"text", "array", "map", "xml"}
    assert all(root["tree" if "tree" in root else "delta"] for root in content.roots.values())
    assert "\ufffd" not in json.dumps(content.roots, ensure_ascii=False)


async def test_clients_in_two_processes_reach_equal_content_hashes(node: NodeClients, relay: Relay) -> None:
    async with NodeClients() as other:
        [ann] = await joined(node, relay, "ann")
        [ben] = await joined(other, relay, "ben")
        await asyncio.gather(ann.random(seed=1, count=60), ben.random(seed=2, count=60))
        await ann.edit({"root": "t", "do": "append", "text": "[ann is done]"})
        await ben.edit({"root": "t", "do": "append", "text": "[ben is done]"})
        await ann.watch("[ben is done]")
        await ben.watch("[ann is done]")

        assert (await ann.content()).content_hash == (await ben.content()).content_hash
        assert await ann.seen_structs() == await ben.seen_structs()


async def test_the_same_seed_makes_the_same_edits(node: NodeClients) -> None:
    contents = []
    for name in ("first", "second"):
        client = await node.open(name, url="ws://127.0.0.1:9/ws", room="r", connect=False, client_id=7)
        await client.random(seed=42, count=200)
        contents.append(await client.content())

    assert contents[0] == contents[1]


async def test_an_edit_is_named_for_every_kind_of_shared_type(node: NodeClients, relay: Relay) -> None:
    ann, ben = await joined(node, relay, "ann", "ben")

    await ann.edit(
        {"root": "t", "do": "insert", "index": 0, "text": f"Hello {EMOJI_FAMILY}"},
        {"root": "t", "do": "format", "index": 0, "length": 5, "attributes": {"bold": True}},
        {"root": "t", "do": "embed", "index": 5, "embed": {"image": "/a.png"}},
        {"root": "a", "do": "push", "values": [1, {"$array": ["in"]}, {"$map": {"k": 1.5}}]},
        {"root": "a", "path": [1], "do": "insert", "index": 1, "values": ["deep"]},
        {"root": "m", "do": "set", "key": "title", "value": {"$text": "x"}},
        {"root": "m", "path": ["title"], "do": "append", "text": "yz"},
        {"root": "m", "do": "set", "key": "gone", "value": 1},
        {"root": "m", "do": "delete", "key": "gone"},
        {
            "root": "x",
            "do": "push",
            "nodes": [{"name": "heading", "attributes": {"level": "1"}, "children": [{"text": "Ti"}]}],
        },
        {"root": "x", "path": [0, 0], "do": "append", "text": "tle", "attributes": {"em": {}}},
        {"root": "x", "path": [0], "do": "set_attribute", "name": "id", "value": "h"},
    )
    await node.converged(ann, ben)

    roots = (await ben.content()).roots
    assert roots["t"]["delta"] == [
        {"insert": "Hello", "attributes": {"bold": True}},
        {"insert": {"image": "/a.png"}},
        {"insert": f" {EMOJI_FAMILY}"},
    ]
    assert roots["a"]["json"] == [1, ["in", "deep"], {"k": 1.5}]
    assert roots["m"]["tree"] == {"$map": {"title": {"$text": [{"insert": "xyz"}]}}}
    assert roots["x"]["tree"] == [
        {
            "name": "heading",
            "attributes": {"id": "h", "level": "1"},
            "children": [{"$text": [{"insert": "Ti"}, {"insert": "tle", "attributes": {"em": {}}}]}],
        }
    ]
    assert roots["x"]["string"] == '<heading id="h" level="1">Ti<em>tle</em></heading>'


async def test_pycrdt_reads_the_update_of_a_javascript_client(node: NodeClients) -> None:
    client = await node.open("ann", url="ws://127.0.0.1:9/ws", room="r", connect=False)
    await client.type("naïve 😀", root="t")

    doc: pycrdt.Doc[Any] = pycrdt.Doc()
    doc.apply_update(await client.update())

    assert str(doc.get("t", type=pycrdt.Text)) == "naïve 😀" == await client.seen()
    assert doc.get_state() == await client.state_vector()
    assert [one.remote for one in await client.updates()] == [False] * 7


async def test_edits_made_offline_arrive_after_the_client_connects_again(node: NodeClients, relay: Relay) -> None:
    ann, ben = await joined(node, relay, "ann", "ben")
    await ann.disconnect()
    await ann.edit({"root": "t", "do": "append", "text": "offline "})
    await ben.edit({"root": "t", "do": "append", "text": "online "})

    await ann.connect()
    await node.converged(ann, ben)

    assert sorted((await ben.seen()).split()) == ["offline", "online"]
    assert (await ann.wait_event("close"))["code"] is None


async def test_a_dropped_connection_is_taken_up_again(node: NodeClients, relay: Relay) -> None:
    [ann] = await joined(node, relay, "ann")
    before = len(await ann.events())

    await ann.drop()

    assert (await ann.wait_event("close", after=before))["code"] == 1006
    await ann.wait_event("sync", after=before, synced=True)


async def test_awareness_is_seen_and_goes(node: NodeClients, relay: Relay) -> None:
    ann, ben = await joined(node, relay, "ann", "ben")
    await ann.set_awareness({"user": {"name": "Ann"}})
    await ben.wait_awareness(ann.client_id)
    await ann.set_awareness({"user": {"name": "Ann"}, "cursor": 3})
    await ann.destroy()
    await ben.wait_awareness(ann.client_id, present=False)

    assert ann.client_id not in await ben.awareness()


async def test_awareness_of_a_killed_process_goes(node: NodeClients, relay: Relay) -> None:
    [ben] = await joined(node, relay, "ben")
    async with NodeClients() as doomed:
        [ann] = await joined(doomed, relay, "ann")
        await ann.set_awareness({"user": {"name": "Ann"}})
        await ben.wait_awareness(ann.client_id)
        await doomed.kill()
        await ben.wait_awareness(ann.client_id, present=False)
        with pytest.raises(NodeError, match="has ended"):
            await ann.content()


async def test_a_final_close_is_told_with_its_code_and_never_retried(node: NodeClients, relay: Relay) -> None:
    ann = await node.open("ann", url=relay.url, room="closed-4403")

    assert (await ann.wait_event("closed"))["code"] == 4403
    assert [event["code"] for event in await ann.events() if event["kind"] == "close"] == [4403]


async def test_a_denied_edit_is_told_with_its_reason(node: NodeClients, relay: Relay) -> None:
    [ann] = await joined(node, relay, "ann", room="denied")
    await ann.edit({"root": "m", "do": "set", "key": "k", "value": 1})

    assert (await ann.wait_event("denied"))["reason"] == "read only"


@pytest.mark.parametrize("room", ["a/b c/ü😀", "100% sure?#no", "trailing/", "a//b"])
async def test_a_room_of_any_name_reaches_the_server_unchanged(node: NodeClients, relay: Relay, room: str) -> None:
    ann = await node.open("ann", url=relay.url, room=room, params={"ticket": "t&1"}, headers={"Cookie": "sessionid=s"})
    await ann.wait_synced()

    assert relay.handshakes() == [{"name": room, "query": "?ticket=t%261", "cookie": "sessionid=s"}]


async def test_what_another_client_received_is_counted_and_named_by_its_writer(node: NodeClients, relay: Relay) -> None:
    ann, ben = await joined(node, relay, "ann", "ben")
    await ann.type("kept")
    await ben.wait_structs({ann.client_id: 4})

    assert await ben.wait_update_count(4) == 4
    assert await ben.seen_structs() == {ann.client_id: 4}
    assert [one.remote for one in await ben.updates()] == [True] * 4


async def test_a_wait_that_is_never_met_names_what_it_waited_for(node: NodeClients, relay: Relay) -> None:
    [ann] = await joined(node, relay, "ann")
    with pytest.raises(NodeError, match='still no "never" in "t" of "ann"'):
        await ann.watch("never", timeout_seconds=0.05)


async def test_a_crash_of_node_is_told_with_its_stderr(node: NodeClients, relay: Relay) -> None:
    [ann] = await joined(node, relay, "ann")
    with pytest.raises(NodeError, match="no root"):
        await ann.edit({"root": "nowhere", "do": "append", "text": "x"})
    await ann.edit({"root": "t", "do": "append", "text": "the process goes on"})
    await node.kill()
    with pytest.raises(NodeError, match="node has ended"):
        await ann.seen()
