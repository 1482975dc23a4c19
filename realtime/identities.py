"""Who an account is to the others in a room."""

from documents.roles import User
from history.authors import author_of
from realtime.protocols.identities import NOBODY, Identity


def identity_of(user: User | None) -> Identity:
    """The identity of an account, named as the history names its author; of nobody for None."""
    return NOBODY if user is None else Identity(str(user.pk), author_of(user).name)
