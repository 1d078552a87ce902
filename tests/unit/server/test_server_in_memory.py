"""The server that the tests of this folder speak to is a whole one, and one test's is not another's."""

from support.server_in_memory import ServerInMemory, server_in_memory


def test_people_and_devices_are_answered(server: ServerInMemory) -> None:
    listed = server.people().get("models").raise_for_status().json()
    assert [(each["name"], each["baseline"]) for each in listed] == [("wake", 1)]
    assert server.public().get("/metadata/timestamp.json").raise_for_status().json()["signed"]["version"] > 1
    answer = server.device().post("/device/v1/check", json={"models": {"wake": None}})
    assert answer.raise_for_status().json()["models"]["wake"]["serial"] == 1


def test_a_report_is_stored_and_a_round_takes_it(server: ServerInMemory) -> None:
    with server.device() as device:
        body = {"epoch": "0123456789abcdef", "windows": [], "models": ["wake"]}
        assert device.post("/device/v1/reports", json=body).status_code == 204
    assert len(server.run(server.inbox.take(10)).records) == 1
    server.round()
    assert server.run(server.inbox.take(10)).records == ()


def test_what_one_server_holds_another_one_does_not(server: ServerInMemory) -> None:
    server.publish()
    with server_in_memory(versions=0) as other:
        assert other.people().get("models").json() == []
        assert server.people().get("models/wake").json()["versions"] == 3
    with server_in_memory() as third:
        assert third.people().get("models/wake").json()["versions"] == 2
