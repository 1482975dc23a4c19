from django.apps import AppConfig


class RealtimeConfig(AppConfig):
    name = "realtime"

    def ready(self) -> None:
        from realtime import bus
        from realtime.chat import telling
        from realtime.notifications import causes

        bus.connect_signals()
        telling.connect()
        causes.connect()
