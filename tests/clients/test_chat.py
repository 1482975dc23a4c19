"""Chats over two worker processes; with the channel layer dead: `test_dead_bus`."""

import asyncio

from documents.models import Membership
from tests.clients.chats import in_chat
from tests.clients.people import a_cast
from tests.clients.stack import Stack, a_room


async def test_people_on_two_workers_say_things_and_a_lost_right_ends_it(members_stack: Stack) -> None:
    stack = members_stack
    cast = await stack.database.run(a_cast, a_room("chat"))
    async with in_chat(stack, cast, "olga", on=0) as olga, in_chat(stack, cast, "ed", on=1) as ed:
        await olga.say("hello")
        await asyncio.gather(olga.until_said("hello"), ed.until_said("hello"))
        await ed.say("hi")
        await asyncio.gather(olga.until_said("hello", "hi"), ed.until_said("hello", "hi"))
        assert olga.messages == ed.messages
        await stack.database.run(lambda: Membership.objects.get(user=cast.user_ids["ed"]).delete())
        assert await ed.close_code() == 4403
    async with in_chat(stack, cast, "olga", on=1, after=olga.messages[0]["id"]) as again:
        await again.until_said("hi")
