"""The task that pushes an edit: a database that is away when it starts costs a pause, not the edit."""

import base64
import copy
from typing import Any

import pytest
from celery.signals import task_retry
from django.db import connection

from realtime.tasks import push_document_update
from tests.builders import log_of, make_document, typed

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_push_that_finds_the_database_away_is_tried_again_and_stored_once() -> None:
    document = make_document()
    update = base64.b64encode(typed("pushed")[0]).decode()
    given = copy.copy(connection.settings_dict)
    retried: list[str] = []

    def come_back(*, reason: Any, **_: Any) -> None:
        retried.append(type(reason.exc).__name__)
        connection.settings_dict = given

    task_retry.connect(come_back)
    connection.close()
    connection.settings_dict = {**given, "HOST": "127.0.0.1", "PORT": "1"}
    try:
        done = push_document_update.apply(args=(document.name, update), task_id="once")
    finally:
        connection.settings_dict = given
        task_retry.disconnect(come_back)

    assert (done.get(), retried, len(log_of(document))) == (1, ["OperationalError"], 1)
