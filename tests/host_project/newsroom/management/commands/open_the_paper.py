"""People, desks and empty articles for the tests."""

from typing import Any

from django.core.management.base import BaseCommand

from documents.models import Document
from newsroom.models import Article, Desk, Person

PEOPLE = (
    ("ida@paper.example", "news"),
    ("jon@paper.example", "news"),
    ("eve@paper.example", "sport"),
    ("kit@paper.example", "news"),
)


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("articles", nargs="+", help="room names, all of the news desk")

    def handle(self, *args: Any, articles: list[str], **options: Any) -> None:
        for email, desk in PEOPLE:
            at = Desk.objects.get_or_create(name=desk)[0]
            Person.objects.create_user(email, "secret", desk=at, press_card=f"card-of-{email}")
        news = Desk.objects.get(name="news")
        Person.objects.create_user("chief@paper.example", "secret", desk=news, is_staff=True, is_superuser=True)
        for name in articles:
            document = Document.objects.create(name=name, title=f"On {name}")
            Article.objects.create(document=document, desk=news)
