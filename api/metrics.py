"""`GET /metrics`: who may ask, and that whoever may is always answered."""

import hmac
import ipaddress
from typing import Final

from fastapi import APIRouter, Request, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from api.errors import NotAuthenticated, NotFound
from api.service import Asked
from api.settings import ApiSettings

HANDED_ON: Final = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
REFUSED: Final = (
    "Metrics are answered on this machine, and to who shows the metrics token as a bearer token (RUNWIRE_METRICS, "
    "RUNWIRE_METRICS_TOKEN)."
)

router = APIRouter(tags=["operations"])


@router.get("/metrics", summary="What this process counts, for Prometheus", response_class=Response)
async def metrics(request: Request, service: Asked) -> Response:
    _let_in(request, service.settings)
    await service.figures.vitals.refresh(service.watching)
    return Response(generate_latest(service.figures.registry), media_type=CONTENT_TYPE_LATEST)


def _let_in(request: Request, settings: ApiSettings) -> None:
    """API keys do not count here: they are a tenant's, and these figures are of the whole service."""
    if settings.metrics == "off":
        raise NotFound
    if settings.metrics == "open" or (settings.metrics == "loopback" and _from_here(request)):
        return
    wanted = settings.metrics_token
    given = request.headers.get("authorization", "")
    if wanted is None or not hmac.compare_digest(given.encode(), f"Bearer {wanted.get_secret_value()}".encode()):
        raise NotAuthenticated(REFUSED)


def _from_here(request: Request) -> bool:
    """Asked on this machine and by itself: a proxy beside us that hands on a stranger's request says so in a header."""
    if request.client is None or any(name in request.headers for name in HANDED_ON):
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
