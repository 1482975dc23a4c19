from typing import Any

from django.apps import AppConfig


class NewsroomConfig(AppConfig):
    name = "newsroom"

    def ready(self) -> None:
        from history.signals import document_changed

        document_changed.connect(_write_down)


def _write_down(document: Any, seq: int, actor: Any | None, **_: Any) -> None:
    from newsroom.models import Heard

    Heard.objects.create(document_name=document.name, seq=seq, actor="" if actor is None else actor.email)
