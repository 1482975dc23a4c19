from django.apps import AppConfig


class HistoryConfig(AppConfig):
    name = "history"
    verbose_name = "history"

    def ready(self) -> None:
        from history import audit, checks

        audit.connect()
        checks.connect()
