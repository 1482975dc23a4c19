"""What people may type on the pages about documents; the acts themselves check it again."""

from typing import Any

from django import forms
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError

from documents.models import Role
from documents.naming import NAME_LENGTH_MAX, validate_name
from documents.opening import TITLE_LENGTH_MAX, clean_title
from documents.roles import User


class TitleForm(forms.Form):
    title = forms.CharField(
        max_length=TITLE_LENGTH_MAX, widget=forms.TextInput(attrs={"autofocus": True, "autocomplete": "off"})
    )

    def clean_title(self) -> str:
        return clean_title(self.cleaned_data["title"])


class NewDocumentForm(TitleForm):
    name = forms.CharField(
        label="Room name",
        required=False,
        max_length=NAME_LENGTH_MAX,
        validators=[validate_name],
        widget=forms.TextInput(attrs={"autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}),
        help_text="Editors connect to it, and it never changes. Left empty, one is made that nobody can guess.",
    )


class RoleForm(forms.Form):
    role = forms.TypedChoiceField(
        choices=Role.choices, coerce=lambda value: Role(int(value)), empty_value=None, initial=Role.EDITOR
    )


class NewMemberForm(RoleForm):
    username = forms.CharField(
        label="User name",
        max_length=254,
        widget=forms.TextInput(attrs={"autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}),
    )

    field_order = ["username", "role"]

    def clean_username(self) -> User:
        """The user's account: `cleaned_data["username"]` is no text any more."""
        model: Any = get_user_model()
        user = model.objects.filter(**{model.USERNAME_FIELD: self.cleaned_data["username"]}).first()
        if user is None or not user.is_active:  # a host's users may have no such column
            raise ValidationError("There is no user of that name.")
        return user
