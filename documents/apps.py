from django.apps import AppConfig


class DocumentsConfig(AppConfig):
    name = "documents"

    def ready(self) -> None:
        from documents import acts, checks, signals

        checks.connect()
        signals.connect()
        acts.connect()
