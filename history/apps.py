from django.apps import AppConfig


class HistoryConfig(AppConfig):
    name = "history"
    verbose_name = "history"

    def ready(self) -> None:
        from history import checks
        from history.audit import entries as audit

        audit.connect()
        checks.connect()
