"""What every page says to the browser about itself."""

import pytest
from django.contrib.auth.models import User
from django.test import Client

from documents.opening import create_document

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada(client: Client) -> Client:
    user = User.objects.create_user("ada", password="correct horse", is_staff=True)
    client.force_login(user)
    return client


def test_pages_run_no_script_and_load_no_style_but_our_own_and_are_not_kept(ada: Client) -> None:
    document = create_document(User.objects.get(), title="Minutes")
    for path in ("/", f"/d/{document.key}/", f"/d/{document.key}/members/", f"/d/{document.key}/history/"):
        response = ada.get(path)
        assert response.status_code == 200
        policy = response["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "no-store" in response["Cache-Control"]


def test_the_admin_is_held_to_the_same_policy(ada: Client) -> None:
    assert "script-src 'self'" in ada.get("/admin/")["Content-Security-Policy"]
