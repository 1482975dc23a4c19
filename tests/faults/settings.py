"""The settings of a stack under faults: the project's own, with a channel layer whose badness the environment says."""

import os

from config.settings import *  # noqa: F403
from config.settings import CHANNEL_LAYERS

_layer = CHANNEL_LAYERS["default"]
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "tests.faults.lossy_layer.LossyRedisChannelLayer",
        "CONFIG": {
            **_layer["CONFIG"],  # type: ignore[dict-item]
            "seed": int(os.environ.get("FAULTS_SEED", "0")),
            "drop": float(os.environ.get("FAULTS_DROP", "0")),
            "repeat": float(os.environ.get("FAULTS_REPEAT", "0")),
            "delay": float(os.environ.get("FAULTS_DELAY", "0")),
            "group_expiry": int(os.environ.get("FAULTS_GROUP_EXPIRY_SECONDS", "86400")),
            "expiry": int(os.environ.get("FAULTS_MESSAGE_EXPIRY_SECONDS", "30")),
        },
    }
}

# What a killed worker had in hand comes back soon enough to be looked for at the end of a run.
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 15,
    "unacked_restore_interval": 2,
    "unacked_restore_throttle": 1,
}

# How long a worker waits for word from a child that was killed before it gives the task back.
CELERY_WORKER_LOST_WAIT = 0.1
