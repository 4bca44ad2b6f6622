"""The alert hook: one JSON document POSTed to a URL for each sandbox that ends soon."""

from __future__ import annotations

from collections.abc import Mapping

from sandbox.model.errors import OperationFailed

_TIMEOUT_S = 10.0


async def post(url: str, document: Mapping[str, object]) -> None:
    """POST a document. The URL may hold a token, so it is in no error.

    Raises:
        OperationFailed: it was not taken.
    """
    import aiohttp

    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S), trust_env=True) as session:
            async with session.post(url, json=document, allow_redirects=False) as answer:
                if answer.status >= 300:
                    raise OperationFailed("the alert was not taken", why=f"the alert URL answered {answer.status}")
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise OperationFailed("the alert was not sent", why=type(error).__name__) from None
