"""The consumer that ypy-websocket documents, renamed as docs/migrating.md says: `y_py` is `pycrdt` now."""

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from pycrdt import Doc, create_update_message

from realtime.consumers import YjsConsumer


class DocConsumer(YjsConsumer):
    def make_room_name(self) -> str:
        # modify the room name here
        return self.scope["url_route"]["kwargs"]["room"]

    async def make_ydoc(self) -> Doc:
        doc = Doc()  # Y.YDoc()
        # fill doc with data from DB here
        doc.observe(self.on_update_event)  # doc.observe_after_transaction(…)
        return doc

    async def connect(self):
        user = self.scope["user"]
        if user is None or user.is_anonymous:
            await self.close()
            return
        await super().connect()

    def on_update_event(self, event):
        # process event here
        self.last_update = event.update  # event.get_update()

    async def doc_update(self, update_wrapper):
        update = update_wrapper["update"]
        self.ydoc.apply_update(update)  # Y.apply_update(self.ydoc, update)
        await self.group_send_message(create_update_message(update))


def send_doc_update(room_name, update):
    layer = get_channel_layer()
    async_to_sync(layer.group_send)(room_name, {"type": "doc_update", "update": update})
