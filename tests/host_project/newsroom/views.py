"""The host's own doors. ATOMIC_REQUESTS puts each of them into a transaction."""

import base64

from asgiref.sync import async_to_sync
from django.contrib.auth.decorators import login_required
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt

from documents.roles import access_changed
from history.models import Via
from history.writes import restore, write_session
from newsroom.models import Article, Desk, Person
from realtime.push import send_doc_update
from realtime.tasks import push_document_update

PRESS = 4711
"""The advisory lock that a test holds to stop a correction before its commit."""


class Spiked(Exception):
    """Raised to roll a correction back."""


@login_required
def front_page(request: HttpRequest) -> HttpResponse:
    return HttpResponse("the newsroom")


@csrf_exempt
@login_required
def correct(request: HttpRequest, name: str) -> HttpResponse:
    """Write into the document and into the host's own table, then wait for the press; `spike` rolls both back."""
    article = get_object_or_404(Article, document__name=name)
    update = bytes.fromhex(request.POST["update"])
    stored = async_to_sync(send_doc_update)(name, update, actor=request.user)
    article.corrections.create(reason="a correction")
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [PRESS])
    if "spike" in request.POST:
        raise Spiked
    return JsonResponse({"seq": None if stored is None else stored.seq})


@csrf_exempt
@login_required
def take_from_the_wire(request: HttpRequest, name: str) -> HttpResponse:
    update = base64.b64encode(bytes.fromhex(request.POST["update"])).decode()
    person = request.user.pk
    transaction.on_commit(lambda: push_document_update.delay(name, update, actor_pk=person))
    return HttpResponse(status=202)


@csrf_exempt
@login_required
def send_to_print(request: HttpRequest, name: str) -> HttpResponse:
    """The desk's rule now answers differently; the open editors are told."""
    article = get_object_or_404(Article, document__name=name)
    article.gone_to_print = True
    article.save()
    access_changed(article.document)
    return HttpResponse(status=204)


@csrf_exempt
@login_required
def move_to_desk(request: HttpRequest, name: str) -> HttpResponse:
    article = get_object_or_404(Article, document__name=name)
    article.desk = Desk.objects.get(name=request.POST["desk"])
    article.save()
    access_changed(article.document)
    return HttpResponse(status=204)


@csrf_exempt
@login_required
def back_to(request: HttpRequest, name: str, seq: int) -> HttpResponse:
    article = get_object_or_404(Article, document__name=name)
    stored = restore(write_session(article.document, actor=request.user, via=Via.API), seq)
    return JsonResponse({"seq": None if stored is None else stored.seq})


@csrf_exempt
@login_required
def transfer(request: HttpRequest, name: str) -> HttpResponse:
    """A person goes to another desk: what the rule reads is in the account, not in the article."""
    article = get_object_or_404(Article, document__name=name)
    person = Person.objects.get(email=request.POST["person"])
    person.desk = Desk.objects.get(name=request.POST["desk"])
    person.save()
    access_changed(article.document, person)
    return HttpResponse(status=204)
