"""What a prober that somebody brings may leave out: the defaults of the request and of the answer."""

from whimbrel.device.ports import ProbeRequest, ProbeResult


def test_a_prober_that_says_only_whether_it_passed_claims_nothing_else() -> None:
    assert ProbeResult(passed=True) == ProbeResult(
        passed=True,
        reason="",
        how="",
        latency_ms=None,
        memory_mib=None,
        accuracy=None,
        over_budget=False,
        offline=False,
    )


def test_a_request_that_names_a_file_alone_asks_for_nothing_more() -> None:
    assert ProbeRequest(path="m.onnx", format="onnx") == ProbeRequest(
        path="m.onnx", format="onnx", signature=None, probe=None, size_bytes=0, folder=""
    )
