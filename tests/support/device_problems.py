"""What a refused request of a device is told."""

import httpx


def problem_of(answer: httpx.Response) -> tuple[int, str, str]:
    """The status, title and sentence of a problem document (RFC 9457)."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    document = answer.json()
    assert document.keys() == {"title", "status", "detail"}
    assert document["status"] == answer.status_code
    return answer.status_code, document["title"], document["detail"]
