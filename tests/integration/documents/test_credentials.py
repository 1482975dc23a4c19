"""Whether what somebody came with still holds, for user models and sessions of any kind."""

import uuid
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.backends.db import SessionStore
from django.db import connection, models
from django.test.utils import isolate_apps
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from documents import credentials
from documents.credentials import ANONYMOUS, Credential, decides, has_ended_elsewhere, read_accounts, read_standing
from documents.models import Document, Role
from documents.roles import Applicant, admit, admit_again, membership_role
from tests.integration.documents.builders import PASSWORD, a_document, a_user

pytestmark = pytest.mark.django_db


def a_session(user: User) -> SessionStore:
    session = SessionStore()
    session["_auth_user_id"] = str(user.pk)
    session.save()
    return session


def test_nobody_has_nothing_that_could_end() -> None:
    document = a_document(a_user("ada"))
    assert Credential.of(None) == Credential.of(AnonymousUser()) == Credential.by_password(AnonymousUser()) == ANONYMOUS
    assert admit(AnonymousUser(), document).signed_in
    assert read_standing([ANONYMOUS]).stamps == {}


def test_a_password_ends_what_it_let_in_and_a_login_does_not() -> None:
    ada = a_user("ada")
    document = a_document(ada)
    by_password, by_account = Credential.by_password(ada), Credential.of(ada)
    before = admit(ada, document, credential=by_password)
    User.objects.filter(pk=ada.pk).update(last_login=timezone.now())
    assert before.holds(by_password, read_standing([by_password]))
    ada.set_password("another")
    ada.save()
    assert not before.holds(by_password, read_standing([by_password]))
    assert admit(ada, document, credential=by_password).signed_in is False
    assert admit(ada, document, credential=by_account).role is Role.OWNER


def test_a_password_under_an_older_secret_key_counts_while_that_is_a_fallback(settings: Settings) -> None:
    ada = a_user("ada")
    document, credential = a_document(ada), Credential.by_password(ada)
    settings.SECRET_KEY_FALLBACKS, settings.SECRET_KEY = [settings.SECRET_KEY], "a new one"
    assert admit(ada, document, credential=credential).role is Role.OWNER
    settings.SECRET_KEY_FALLBACKS = []
    assert not admit(ada, document, credential=credential).signed_in


def test_a_session_counts_until_it_is_gone_or_has_expired_and_only_for_its_own_user() -> None:
    ada, bob = a_user("ada"), a_user("bob")
    document, session = a_document(ada), a_session(ada)
    credential = Credential.by_session(ada, session)
    assert credential.session_key == session.session_key
    assert Credential.by_session(bob, session) == Credential.of(bob)
    assert Credential.by_session(ada, None) == Credential.of(ada)
    assert admit(ada, document, credential=credential).role is Role.OWNER
    session.model.objects.update(expire_date=timezone.now() - timedelta(seconds=1))
    assert not admit(ada, document, credential=credential).signed_in


def test_everyone_is_one_query_for_accounts_and_one_for_sessions(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    people = [a_user(f"user{number}") for number in range(5)]
    held = [Credential.by_session(user, a_session(user)) for user in people for _ in range(2)]
    with django_assert_num_queries(2):
        standing = read_standing(held)
    assert set(standing.stamps) == {user.pk for user in people}
    assert all(standing.has_session(each) for each in held)


def test_the_rule_is_asked_once_for_an_account_with_many_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    ada = a_user("ada")
    document = a_document(ada)
    asked: list[object] = []

    def rule(user: object, _: Document) -> Role:
        asked.append(user)
        return Role.OWNER

    monkeypatch.setattr("documents.roles.role_once_recovered", rule)
    held = {Applicant(Credential.by_session(ada, a_session(ada))): ada for _ in range(3)}
    assert {each.role for each in admit_again(held, document).values()} == {Role.OWNER}
    assert asked == [ada]


def test_a_doors_own_rule_is_asked_once_for_each_account_and_no_other_door_goes_by_it() -> None:
    ada = a_user("ada")
    document = a_document(ada)
    asked: list[object] = []

    def rule(user: object, _: Document) -> Role:
        asked.append(user)
        return Role.VIEWER

    by_session = [Credential.by_session(ada, a_session(ada)) for _ in range(2)]
    held = {Applicant(credential, each): ada for credential in by_session for each in (None, rule)}
    roles = {applicant: admission.role for applicant, admission in admit_again(held, document).items()}
    assert roles == {each: Role.OWNER if each.rule is None else Role.VIEWER for each in held}
    assert asked == [ada]


def test_who_has_no_role_since_the_account_went_just_now_is_signed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    ada = a_user("ada")
    document = a_document(ada)
    held = {Applicant(Credential.by_session(ada, a_session(ada))): ada for _ in range(2)}

    def rule_that_comes_too_late(user: User, document: Document) -> Role | None:
        User.objects.filter(pk=user.pk).delete()
        return membership_role(user, document)

    monkeypatch.setattr("documents.roles.role_once_recovered", rule_that_comes_too_late)
    admissions = admit_again(held, document)
    assert [(each.role, each.signed_in) for each in admissions.values()] == [(None, False)] * 2


@pytest.mark.parametrize("engine", ["cache", "file", "signed_cookies"])
def test_a_session_that_the_database_does_not_keep_is_asked_of_its_engine(
    engine: str, settings: Settings, tmp_path: object
) -> None:
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    settings.SESSION_FILE_PATH = str(tmp_path)
    ada = a_user("ada")
    session = __import__(settings.SESSION_ENGINE, fromlist=["SessionStore"]).SessionStore()
    session["_auth_user_id"] = str(ada.pk)
    session.save()
    credential = Credential.by_session(ada, session)
    assert not credentials.sessions_are_in_database()
    assert read_standing([credential]).has_session(credential)
    assert not has_ended_elsewhere(credential)
    assert has_ended_elsewhere(Credential(ada.pk + 1, session_key=session.session_key))
    if engine != "signed_cookies":  # which cannot be revoked
        session.flush()
        assert has_ended_elsewhere(credential)


@pytest.fixture
def foreign_user_model(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[models.Model]]:
    """Keys are UUIDs, the fields are of two tables, and what ends sessions is a counter of the model's own."""
    with isolate_apps("documents"):

        class Being(models.Model):  # noqa: DJ008  (it lives for one test)
            number = models.UUIDField(primary_key=True, default=uuid.uuid4)
            is_active = models.BooleanField(default=True)

            class Meta:
                app_label = "documents"

        class Person(Being, AbstractBaseUser):  # noqa: DJ008
            sign_outs = models.IntegerField(default=0)
            USERNAME_FIELD = "number"

            class Meta:
                app_label = "documents"

            def get_session_auth_hash(self) -> str:
                return f"{self.password} {self.sign_outs}"

            def get_session_auth_fallback_hash(self) -> Iterator[str]:
                yield from ()

        with connection.schema_editor() as editor:
            editor.create_model(Being)
            editor.create_model(Person)
        monkeypatch.setattr(credentials, "get_user_model", lambda: Person)
        yield Person


def test_a_user_model_of_any_key_and_table_with_a_hash_of_its_own(foreign_user_model: type[models.Model]) -> None:
    person = foreign_user_model._default_manager.create(password="x")
    credential = Credential.by_password(person)
    stamp = read_standing([credential]).stamps[person.pk]
    account = read_accounts([credential])[person.pk]
    assert (account.stamp, account.user, account.lets_in(credential)) == (stamp, person, True)

    foreign_user_model._default_manager.update(sign_outs=1)
    assert read_standing([credential]).stamps[person.pk] != stamp
    assert not read_accounts([credential])[person.pk].lets_in(credential)

    foreign_user_model._default_manager.update(sign_outs=0, last_login=timezone.now())
    assert read_standing([credential]).stamps[person.pk] == stamp
    foreign_user_model._default_manager.update(is_active=False)  # in the other table
    assert read_standing([credential]).stamps[person.pk] != stamp
    assert not read_accounts([credential])[person.pk].lets_in(credential)

    assert decides(foreign_user_model, {"sign_outs"}) and not decides(foreign_user_model, {"last_login"})
    person.delete()
    assert person.pk is None or read_standing([credential]).stamps == {}


def test_a_save_of_what_does_not_decide_tells_nobody() -> None:
    assert decides(User, None) and decides(User, {"password"}) and decides(User, {"is_superuser", "email"})
    assert not decides(User, {"last_login"}) and not decides(User, {"email"})
    assert PASSWORD not in repr(Credential.by_password(a_user("ada"), session_key=PASSWORD))
