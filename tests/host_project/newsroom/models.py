"""The host's people, desks and articles. An article has one collaborative document; nobody is a `Membership`."""

import uuid
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.db import models


class Desk(models.Model):
    name = models.CharField(max_length=50, unique=True)

    def __str__(self) -> str:
        return self.name


class PersonManager(BaseUserManager["Person"]):
    def create_user(self, email: str, password: str | None = None, **fields: Any) -> "Person":
        person = self.model(email=email, **fields)
        person.set_password(password)
        person.save()
        return person


class Person(AbstractBaseUser, PermissionsMixin):
    """Signs in by e-mail address; there is no user name."""

    number = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    email = models.EmailField(unique=True)
    desk = models.ForeignKey(Desk, null=True, on_delete=models.SET_NULL, related_name="people")
    press_card = models.CharField(max_length=40, blank=True)
    is_active = models.BooleanField(default=True)
    is_staff = models.BooleanField(default=False)

    objects = PersonManager()
    USERNAME_FIELD = "email"

    def __str__(self) -> str:
        return self.email


class Article(models.Model):
    document = models.OneToOneField("documents.Document", on_delete=models.CASCADE, related_name="article")
    desk = models.ForeignKey(Desk, on_delete=models.CASCADE)
    gone_to_print = models.BooleanField(default=False)

    def __str__(self) -> str:
        return str(self.document)


class Correction(models.Model):
    """A row of the host's own, written in the same transaction as the edit that it tells of."""

    article = models.ForeignKey(Article, on_delete=models.CASCADE, related_name="corrections")
    reason = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.reason


class Heard(models.Model):
    """What the signal `document_changed` told."""

    document_name = models.CharField(max_length=200)
    seq = models.BigIntegerField()
    actor = models.EmailField(blank=True)

    def __str__(self) -> str:
        return f"{self.document_name}@{self.seq}"
