"""The page's server over real sockets: the daemon on one side, viewers on the other, and neither can hurt the other."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from nuclr_stream.dashboard.frames import unpack
from nuclr_stream.dashboard.server import Page, PageSettings
from nuclr_stream.errors import EndpointError, NuclrStreamError
from tests.nuclr_stream.dashboard.conftest import Serve
from tests.nuclr_stream.dashboard.stand_in import FakeProbe, StandIn

Frame = tuple[dict[str, Any], dict[str, Any]]


def place(page: Page) -> str:
    return urlsplit(page.url).netloc


def get(page: Page, path: str = "/", **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(*place(page).split(":"), timeout=10)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response


@contextmanager
def viewer(page: Page, **options: Any) -> Iterator[ClientConnection]:
    origin = options.pop("origin", f"http://{place(page)}")
    with connect(f"ws://{place(page)}/live", origin=origin, max_size=None, **options) as websocket:
        yield websocket


def until(websocket: ClientConnection, found: Callable[[Frame], bool], *, draw: bool = True) -> Frame:
    """Receive frames, drawing each at once, until one answers the description."""
    for _ in range(1000):
        frame = unpack(websocket.recv(timeout=10))
        if draw and "n" in frame[0]:
            websocket.send(json.dumps({"drawn": frame[0]["n"]}))
        if found(frame):
            return frame
    raise AssertionError("it never came")


def steps(frame: Frame) -> dict[str, int]:
    return {probe["stream"]: probe.get("step", -1) for probe in frame[0].get("probes", ())}


def test_everything_that_is_known_comes_at_once(daemon: StandIn, serve: Serve) -> None:
    page = serve(daemon)
    daemon.publish()
    with viewer(page) as websocket:
        seen: set[str] = set()

        def complete(frame: Frame) -> bool:
            seen.add(frame[0]["kind"])
            return {"hello", "layout", "frame", "daemon", "placement", "activity"} <= seen

        until(websocket, complete)


def test_shanks_depths_and_regions_come_from_the_daemon(daemon: StandIn, serve: Serve) -> None:
    page, fake = serve(daemon), daemon.probes["probeB"]
    with viewer(page) as websocket:
        daemon.publish()
        newest: dict[tuple[str, str], Frame] = {}

        def complete(frame: Frame) -> bool:
            newest[frame[0]["kind"], frame[0].get("stream", "")] = frame
            known = ("layout", "probeB") in newest and newest["layout", "probeB"][1]["shank"].max() > 0
            return known and ("placement", "probeA") in newest

        until(websocket, complete)
    header, arrays = newest["layout", "probeB"]
    assert header["unit_ids"] == list(fake.ids)
    assert arrays["shank"].tolist() == fake.shank.tolist()
    assert arrays["depth_um"].tolist() == fake.depth.tolist()
    border = newest["placement", "probeA"][0]["placement"]["shanks"][0]["boundaries"][0]
    assert border["low_um"] < border["depth_um"] < border["high_um"]


def test_the_full_state_is_back_as_soon_as_the_daemon_is(daemon: StandIn, serve: Serve) -> None:
    page, endpoints = serve(daemon), daemon.endpoints
    with viewer(page) as websocket:
        daemon.publish()
        until(websocket, lambda frame: frame[0].get("connected") is True and len(steps(frame)) > 0)
        daemon.close()
        header, _ = until(websocket, lambda frame: frame[0].get("connected") is False)
        assert header["streams"] == ["probeA", "probeB"] and "No daemon" in header["alerts"][0]["text"]
        with StandIn(FakeProbe("probeA", units=60), FakeProbe("probeC", units=4), endpoints=endpoints) as again:
            again.publish()
            until(websocket, lambda frame: frame[0].get("connected") is True and "probeC" in steps(frame))


def test_a_viewer_that_stalls_does_not_slow_another(daemon: StandIn, serve: Serve) -> None:
    page = serve(daemon)
    with viewer(page) as stalled, viewer(page) as other:
        until(stalled, lambda frame: frame[0]["kind"] == "frame", draw=False)
        for _ in range(5):
            daemon.publish()
            until(other, lambda frame: bool(steps(frame)))
        # one frame drawn, one on its way: nothing was queued for it meanwhile
        numbers = []
        with pytest.raises(TimeoutError):
            while True:
                header, _ = unpack(stalled.recv(timeout=0.3))
                numbers += [header["n"]] if "n" in header else []
        assert max(numbers, default=1) <= 2


def test_evidence_is_asked_for_the_unit_that_is_selected(daemon: StandIn, serve: Serve) -> None:
    with viewer(serve(daemon)) as websocket:
        daemon.publish()
        websocket.send(json.dumps({"unit": ["probeA", "u4"]}))
        header, _ = until(websocket, lambda frame: frame[0]["kind"] == "unit")
        predictors = header["evidence"]["units"][0]["tasks"]["cell_type"]["predictors"]
        assert "embedding" in predictors and len(predictors["embedding"]["probabilities"]) == 4


def test_notes_go_to_the_file_and_to_every_viewer(daemon: StandIn, serve: Serve, tmp_path: Path) -> None:
    page = serve(daemon, notes=tmp_path / "notes.jsonl")
    with viewer(page) as writer, viewer(page) as reader:
        daemon.publish()
        until(writer, lambda frame: bool(steps(frame)))
        writer.send(json.dumps({"note": "moved 100 µm"}))
        header, _ = until(
            reader, lambda frame: frame[0]["kind"] == "events" and frame[0]["events"][-1]["kind"] == "note"
        )
        assert header["events"][-1]["detail"] == "moved 100 µm"
    (line,) = (tmp_path / "notes.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["note"] == "moved 100 µm" and json.loads(line)["stream"] == "probeA"


# -- who may see it ---------------------------------------------------------------------------------------------------


def test_files_come_with_a_policy_that_lets_nothing_in_from_elsewhere(daemon: StandIn, serve: Serve) -> None:
    response = get(serve(daemon))
    assert response.status == 200
    policy = str(response.getheader("content-security-policy"))
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy


def test_a_page_elsewhere_gets_neither_the_websocket_nor_the_page_under_its_own_name(
    daemon: StandIn, serve: Serve
) -> None:
    page = serve(daemon)
    with pytest.raises(InvalidStatus, match="403"), viewer(page, origin="http://evil.example"):
        pass
    with pytest.raises(InvalidStatus, match="403"), viewer(page, origin=None):
        pass
    assert get(page, Host="evil.example").status == 403
    assert get(page, Host=f"localhost:{place(page).split(':')[1]}").status == 200


def test_where_there_is_a_token_nothing_comes_without_it(daemon: StandIn, serve: Serve) -> None:
    page = serve(daemon, token="s3cret")
    assert page.url.endswith("/?token=s3cret")
    assert get(page).status == 403
    assert get(page, "/?token=wrong").status == 403
    assert get(page, "/main.js").status == 403
    with pytest.raises(InvalidStatus, match="403"), viewer(page):
        pass
    first = get(page, "/?token=s3cret")
    assert (first.status, first.getheader("location")) == (303, "./")
    cookie = str(first.getheader("set-cookie"))
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    own = cookie.split(";")[0]
    assert get(page, Cookie=own).status == 200
    with viewer(page, additional_headers={"Cookie": own}) as websocket:
        assert unpack(websocket.recv(timeout=10))[0]["kind"] == "hello"


def test_beyond_this_machine_there_is_always_a_token() -> None:
    with closing(Page(PageSettings(host="0.0.0.0", port=0))) as page:
        assert len(page.token) >= 16 and page.token in page.url
    with closing(Page(PageSettings(port=0))) as page:
        assert page.token == ""


def test_files_of_the_machine_cannot_be_reached(daemon: StandIn, serve: Serve) -> None:
    page = serve(daemon)
    assert get(page, "/../server.py").status == 404
    assert get(page, "/%2e%2e/server.py").status == 404


def test_a_port_that_is_taken_and_a_file_that_cannot_be_written_are_said_with_the_remedy(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(EndpointError, match="--port"):
        Page(PageSettings(port=taken.getsockname()[1]))
    with pytest.raises(NuclrStreamError, match=r"--notes .* choose another file"):
        Page(PageSettings(port=0, notes=tmp_path / "no" / "notes.jsonl"))
