from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core import signing
from pytest_django import Settings

from documents.opening import delete_document
from documents.tickets import SALT, TicketExpired, TicketInvalid, issue_ticket, redeem_ticket
from tests.integration.documents.builders import PASSWORD, a_document, a_user

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


def test_a_ticket_names_its_user_for_its_document_as_often_as_it_is_shown() -> None:
    ada = a_user("ada")
    ticket = issue_ticket(ada, a_document(ada, name="minutes"), now=NOW)
    assert [redeem_ticket(ticket.text, "minutes", now=NOW) for _ in range(3)] == [ada] * 3


def test_a_ticket_serves_until_it_expires_and_is_then_told_from_a_wrong_one(settings: Settings) -> None:
    settings.PALIMPSEST = {"TICKET_SECONDS": 60}
    ada = a_user("ada")
    ticket = issue_ticket(ada, a_document(ada, name="minutes"), now=NOW)
    assert ticket.expires_at == NOW + timedelta(seconds=60)
    assert redeem_ticket(ticket.text, "minutes", now=NOW + timedelta(seconds=59)) == ada
    with pytest.raises(TicketExpired):
        redeem_ticket(ticket.text, "minutes", now=NOW + timedelta(seconds=60))


def test_a_ticket_opens_no_other_document() -> None:
    ada = a_user("ada")
    ticket = issue_ticket(ada, a_document(ada, name="minutes"), now=NOW)
    a_document(ada, name="other")
    for name in ("other", "missing"):
        with pytest.raises(TicketInvalid):
            redeem_ticket(ticket.text, name, now=NOW)


def test_a_ticket_dies_with_the_password_it_was_issued_under() -> None:
    ada = a_user("ada")
    ticket = issue_ticket(ada, a_document(ada, name="minutes"), now=NOW)
    ada.set_password("another one")
    ada.save()
    with pytest.raises(TicketInvalid):
        redeem_ticket(ticket.text, "minutes", now=NOW)


def test_a_ticket_dies_with_the_account_and_with_the_document() -> None:
    ada = a_user("ada")
    document = a_document(ada, name="minutes")
    ticket = issue_ticket(ada, document, now=NOW)
    ada.is_active = False
    ada.save()
    with pytest.raises(TicketInvalid):
        redeem_ticket(ticket.text, "minutes", now=NOW)
    ada.is_active = True
    ada.save()
    assert redeem_ticket(ticket.text, "minutes", now=NOW) == ada
    delete_document(document)
    with pytest.raises(TicketInvalid):
        redeem_ticket(ticket.text, "minutes", now=NOW)
    ada.delete()
    with pytest.raises(TicketInvalid):
        redeem_ticket(ticket.text, "minutes", now=NOW)


def test_a_ticket_outlives_a_rotation_of_the_secret_key_that_keeps_the_old_one(settings: Settings) -> None:
    ada = a_user("ada")
    ticket = issue_ticket(ada, a_document(ada, name="minutes"), now=NOW)
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "the next one"
    assert redeem_ticket(ticket.text, "minutes", now=NOW) == ada
    settings.SECRET_KEY_FALLBACKS = []
    with pytest.raises(TicketInvalid):
        redeem_ticket(ticket.text, "minutes", now=NOW)


def test_every_single_changed_character_makes_a_ticket_invalid() -> None:
    ada = a_user("ada")
    text = issue_ticket(ada, a_document(ada, name="minutes"), now=NOW).text
    for place in range(len(text)):
        forged = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
        with pytest.raises(TicketInvalid):
            redeem_ticket(forged, "minutes", now=NOW)


@pytest.mark.parametrize("text", ["", ":", "a:b", "\0", "\ud800:x", "ü:ü", "x" * 100_000])
def test_what_is_no_ticket_is_invalid(text: str) -> None:
    with pytest.raises(TicketInvalid):
        redeem_ticket(text, "minutes", now=NOW)


def test_what_this_server_signed_for_another_purpose_is_no_ticket() -> None:
    ada = a_user("ada")
    document = a_document(ada, name="minutes")
    claims = signing.Signer(salt=SALT).unsign_object(issue_ticket(ada, document, now=NOW).text)
    with pytest.raises(TicketInvalid):
        redeem_ticket(signing.Signer(salt="other").sign_object(claims), "minutes", now=NOW)


def test_a_ticket_shows_neither_the_password_nor_the_hash_of_the_session() -> None:
    ada = a_user("ada")
    text = issue_ticket(ada, a_document(ada, name="minutes"), now=NOW).text
    claims = str(signing.Signer(salt=SALT).unsign_object(text))
    for secret in (PASSWORD, ada.password, ada.get_session_auth_hash()):
        assert secret not in text + claims


def test_an_anonymous_ticket_names_nobody() -> None:
    document = a_document(a_user("ada"), name="minutes")
    ticket = issue_ticket(AnonymousUser(), document, now=NOW)
    assert redeem_ticket(ticket.text, "minutes", now=NOW) == AnonymousUser()
