"""The studio's server: what the page asks for, and everything that is refused."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from PIL import Image
from studio_video import BANDS_THW, FRAMES_THW3, LABELS_THW, NUM_FRAMES, open_desk, toy_model, write_video

from zsvss.results.predictions import Predictions
from zsvss.studio.access import LARGEST_BODY
from zsvss.studio.live_segmentation import Live, Segmenting
from zsvss.studio.newest_first import SupersededError
from zsvss.studio.open_video import UNCHANGED
from zsvss.studio.session import Session

testclient = pytest.importorskip("starlette.testclient", reason="needs starlette (pip install 'zsvss[studio]')")

from zsvss.studio.server import Studio, application  # noqa: E402 - needs what is asked for above

TOKEN, PORT = "a-token_of-40-letters", 8123
HOME = f"http://127.0.0.1:{PORT}"
VIDEO = "/api/videos/0"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_video(tmp_path)


@pytest.fixture
def studio(folder: Path) -> Iterator[Studio]:
    studio = Studio([open_desk(folder)], toy_model(), {"own": ["swan"]})
    yield studio
    studio.model.close()
    studio.desks[0].close()


@pytest.fixture
def client(studio: Studio) -> Any:
    """A page that has come with the token."""
    client = testclient.TestClient(application(studio, TOKEN, PORT), base_url=HOME)
    assert client.get(f"/?token={TOKEN}").status_code == 200
    return client


@pytest.fixture
def stranger(studio: Studio) -> Any:
    return testclient.TestClient(application(studio, TOKEN, PORT), base_url=HOME, follow_redirects=False)


def state(client: Any) -> dict[str, Any]:
    return client.get(f"{VIDEO}/state").json()


def take(client: Any, step: str, **fields: Any) -> Any:
    return client.post(f"{VIDEO}/{step}", json={"revision": state(client)["revision"], **fields})


def as_sent(app: Any, path: str) -> tuple[int, str]:
    """Answer to a path as it is, which no client has tidied up."""
    raw = path.encode()
    scope = {
        "type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "root_path": "", "query_string": b"",
        "path": unquote(path), "raw_path": raw, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", PORT),
        "headers": [(b"host", f"127.0.0.1:{PORT}".encode()), (b"authorization", f"token {TOKEN}".encode())],
    }  # fmt: skip
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    with ThreadPoolExecutor(1) as thread:  # this one may have a loop of its own, of a browser's
        thread.submit(asyncio.run, app(scope, receive, send)).result()
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent).decode()


def finished(client: Any) -> dict[str, Any]:
    """The state when what is computed has ended."""
    for _ in range(600):
        now = state(client)
        if now["work"]["finished"]:
            return now
        threading.Event().wait(0.05)
    raise AssertionError("it does not end")


def ids_of(client: Any, number: int) -> np.ndarray:
    """What the page shows of a mask."""
    now = state(client)
    version = now["frames"].get(str(number), {"version": UNCHANGED})["version"]
    ids_HW = np.array(Image.open(io.BytesIO(client.get(f"{VIDEO}/masks/{number}/{version}").content)))
    merged = {int(segment): into for segment, into in now["merged"].items()}
    return np.vectorize(lambda segment: merged.get(segment, segment))(ids_HW)


def test_page_and_its_files(client: Any) -> None:
    page = client.get("/")
    assert "<title>Studio" in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["cache-control"] == "no-store"
    assert as_sent(client.app, "/api/studio")[0] == 200
    for name in ("main.js", "dom.js", "worker.js", "studio.css", "report.css"):
        assert client.get(f"/files/{name}").status_code == 200
    assert client.get("/api/studio").json()["taxonomies"] == {"own": ["swan"]}


def test_frames_masks_and_areas(client: Any) -> None:
    facts = client.get(VIDEO).json()
    assert (facts["height"], facts["width"], facts["num_frames"]) == (*LABELS_THW.shape[1:], NUM_FRAMES)
    assert dict(facts["areas"][2]) == {n + 1: int((LABELS_THW[2] == n).sum()) for n in range(3)}
    frame_HW3 = np.array(Image.open(io.BytesIO(client.get(f"{VIDEO}/frames/3").content)))
    assert np.abs(frame_HW3.astype(int) - FRAMES_THW3[3]).mean() < 8
    np.testing.assert_array_equal(ids_of(client, 4), LABELS_THW[4] + 1)
    for path in ("frames/6", "masks/6/original", "masks/99999999999999999999/original", "split/0/9/2"):
        assert client.get(f"{VIDEO}/{path}").status_code in (400, 404)
    assert client.get("/api/videos/1").status_code == 404


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {}, 403),
        ("/?token=wrong", {}, 403),
        ("/?token=%C3%BC", {}, 403),
        (f"{VIDEO}/state", {}, 403),
        (f"{VIDEO}/state?token={TOKEN}", {}, 403),  # in the page's address alone
        (f"{VIDEO}/state", {"authorization": f"token {TOKEN}"}, 200),
        (f"{VIDEO}/state", {"authorization": f"Bearer {TOKEN}"}, 403),
        (f"{VIDEO}/state", {"cookie": f"zsvss-studio-{PORT}={TOKEN}"}, 200),
        (f"{VIDEO}/state", {"cookie": f"zsvss-studio-{PORT + 1}={TOKEN}"}, 403),
        (f"{VIDEO}/state", {"cookie": f"zsvss-studio-{PORT}={TOKEN}", "host": "studio.example:8123"}, 421),
        (f"{VIDEO}/state", {"cookie": f"zsvss-studio-{PORT}={TOKEN}", "host": "127.0.0.1:80"}, 421),
        (f"{VIDEO}/state", {"cookie": f"zsvss-studio-{PORT}={TOKEN}", "host": f"localhost:{PORT}"}, 200),
        (f"{VIDEO}/state", {"cookie": f"zsvss-studio-{PORT}={TOKEN}", "origin": "http://evil.example"}, 403),
        (f"{VIDEO}/state", {"cookie": f"zsvss-studio-{PORT}={TOKEN}", "origin": "null"}, 403),
        (f"{VIDEO}/state", {"cookie": f"zsvss-studio-{PORT}={TOKEN}", "sec-fetch-site": "cross-site"}, 403),
        (f"/?token={TOKEN}", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 303),
    ],
)
def test_who_may_come_in(stranger: Any, path: str, headers: dict[str, str], status: int) -> None:
    answer = stranger.get(path, headers=headers)
    assert answer.status_code == status
    if status != 200:
        assert "segments" not in answer.text


def test_the_token_becomes_a_cookie_that_no_script_and_no_other_site_gets(stranger: Any) -> None:
    cookie = stranger.get(f"/?token={TOKEN}").headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


@pytest.mark.parametrize(
    "path",
    [
        "/files/../server.py",
        "/files/..%2fserver.py",
        "/files/%2e%2e/server.py",
        "/files/..%5cserver.py",
        "/files/%00",
        "/files//etc/passwd",
        "/files/index.html%00.js",
        "/files/ma\u0131n.js",
        "/files/.",
        "/files/studio.jsonl",
        f"{VIDEO}/masks/0/..%2f..",
        f"{VIDEO}/masks/-1/original",
        f"{VIDEO}/masks/\u0663/original",
        f"{VIDEO}/masks/{'9' * 5000}/original",
        "/api/videos/0\u0300/state",
    ],
)
def test_nothing_but_the_video_is_served(client: Any, path: str) -> None:
    for raw in (path, path.replace("%", "%25")):
        status, text = as_sent(client.app, raw)
        assert status == 404
        assert "import" not in text


def test_another_site_cannot_take_a_step(client: Any) -> None:
    body = {"revision": 0, "segments": [1], "name": "owned"}
    for headers in ({"origin": "http://evil.example"}, {"sec-fetch-site": "same-site"}, {"origin": "null"}):
        assert client.post(f"{VIDEO}/name", json=body, headers=headers).status_code == 403
    # What a form of another site could send without asking.
    plain = {"content-type": "text/plain"}
    assert client.post(f"{VIDEO}/name", content=json.dumps(body), headers=plain).status_code == 415
    assert client.post(f"{VIDEO}/name", json=body, headers={"origin": HOME}).status_code == 200


def test_bodies_are_bounded_and_must_be_what_they_say(client: Any) -> None:
    kind = {"content-type": "application/json"}
    large = b'{"revision":0,"name":"' + b"x" * LARGEST_BODY + b'"}'
    assert client.post(f"{VIDEO}/name", content=large, headers=kind).status_code == 413
    in_pieces = (large[start : start + 65536] for start in range(0, len(large), 65536))  # without a length
    assert client.post(f"{VIDEO}/name", content=in_pieces, headers=kind).status_code == 413
    for body in (b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"revision": 1e400}', b'{"revision": "0"}'):
        assert client.post(f"{VIDEO}/name", content=body, headers=kind).status_code == 400
    assert client.post(f"{VIDEO}/nothing", json={"revision": 0}).status_code == 404
    assert client.post(f"{VIDEO}/name", json={"revision": 0, "segments": [1], "name": "\u202egnp"}).status_code == 400
    assert state(client)["revision"] == 0


def test_two_tabs_do_not_overwrite_each_other(client: Any) -> None:
    seen = state(client)["revision"]
    first = client.post(f"{VIDEO}/name", json={"revision": seen, "segments": [1], "name": "sky"})
    assert first.json()["state"]["revision"] == 1
    second = client.post(f"{VIDEO}/name", json={"revision": seen, "segments": [1], "name": "sea"})
    assert second.status_code == 409
    assert "revision 1, not 0" in second.text
    assert state(client)["segments"][0]["name"] == "sky"
    for step in ("undo", "save", "propagate", "split", "export"):
        others = {"frame": 0, "backwards": False, "segment": 1, "num": 2, "format": "davis", "frames": False}
        assert client.post(f"{VIDEO}/{step}", json={"revision": seen, **others}).status_code == 409


def test_a_mask_is_that_of_the_version_that_is_asked_for(client: Any) -> None:
    take(client, "brush", frame=2, segment=1, points=[[48, 60]], radius=4, snaps=False)
    painted = state(client)["frames"]["2"]["version"]
    assert client.get(f"{VIDEO}/masks/2/{painted}").status_code == 200
    assert client.get(f"{VIDEO}/masks/2/{UNCHANGED}").status_code == 409
    take(client, "undo")
    refused = client.get(f"{VIDEO}/masks/2/{painted}")
    assert refused.status_code == 409
    assert "frame 3 is original" in refused.text
    mask = client.get(f"{VIDEO}/masks/2/{UNCHANGED}")
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(mask.content))), LABELS_THW[2] + 1)


def test_propagation_from_one_corrected_frame_and_its_undo(client: Any, studio: Studio, folder: Path) -> None:
    session = studio.desks[0].session()
    assert take(client, "propagate", frame=0, backwards=False).status_code == 400
    take(client, "add")
    for number in (1, 5):
        mask = session.new_mask(number, (BANDS_THW[number] + 1).astype(np.int32), corrected=True)
        session.extend(session.new_step(), "brush", [mask])
    take(client, "accept", frame=5, accepted=True)
    assert take(client, "propagate", frame=3, backwards=False).status_code == 200
    now = finished(client)
    assert now["work"] == {"what": "propagation", "done": 3, "total": 3, "error": None, "finished": True}
    assert sorted(map(int, now["frames"])) == [1, 2, 3, 4, 5]
    assert now["given"] == [1, 5]
    for number in (2, 3, 4):
        assert (ids_of(client, number) == BANDS_THW[number] + 1).mean() > 0.9
        assert dict(now["frames"][str(number)]["areas"]) == dict(
            zip(*(a.tolist() for a in np.unique(ids_of(client, number), return_counts=True)), strict=True)
        )
    for number in (1, 5):
        np.testing.assert_array_equal(ids_of(client, number), BANDS_THW[number] + 1)
    assert take(client, "propagate", frame=1, backwards=True).status_code == 200
    finished(client)
    assert (ids_of(client, 0) == BANDS_THW[0] + 1).mean() > 0.9
    assert take(client, "undo").status_code == 200
    np.testing.assert_array_equal(ids_of(client, 0), LABELS_THW[0] + 1)
    assert take(client, "undo").json()["state"]["redo"] == "propagation"
    np.testing.assert_array_equal(ids_of(client, 3), LABELS_THW[3] + 1)
    take(client, "redo")
    assert (ids_of(client, 3) == BANDS_THW[3] + 1).mean() > 0.9


def test_split_recovers_what_the_predictions_had_mixed(client: Any) -> None:
    preview = np.array(Image.open(io.BytesIO(client.get(f"{VIDEO}/split/2/3/2").content)))
    assert set(np.unique(preview[LABELS_THW[2] == 2])) == {1, 2}
    assert not preview[LABELS_THW[2] != 2].any()
    assert take(client, "split", frame=2, segment=3, num=2).status_code == 200
    now = finished(client)
    assert now["work"]["error"] is None
    assert [segment["id"] for segment in now["segments"]] == [1, 2, 3, 4]
    for number in range(NUM_FRAMES):
        ids_HW, inside = ids_of(client, number), LABELS_THW[number] == 2
        np.testing.assert_array_equal(ids_HW[~inside], LABELS_THW[number][~inside] + 1)
        upper, lower = (ids_HW[BANDS_THW[number] == band] for band in (2, 3))
        most = np.bincount(upper).argmax()
        assert (upper == most).mean() > 0.9
        assert (lower == most).mean() < 0.1
    assert take(client, "undo").json()["state"]["segments"][-1]["id"] == 3
    refused = take(client, "split", frame=2, segment=9, num=2)
    assert (refused.status_code, refused.text) == (400, "segment 9 is not in frame 3")
    assert client.get(f"{VIDEO}/split/2/3/13").status_code == 400


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError("no memory is left"), KeyError("no memory is left")])
def test_what_fails_on_the_way_is_told_and_nothing_else_is_lost(
    client: Any, studio: Studio, folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    take(client, "accept", frame=0, accepted=True)
    real, calls = studio.model.see, []

    def see(frames: Any, number: int, num_frames: int) -> Any:
        calls.append(number)
        if number == 3:
            raise error
        return real(frames, number, num_frames)

    monkeypatch.setattr(studio.model, "see", see)
    take(client, "propagate", frame=0, backwards=False)
    now = finished(client)
    assert now["work"]["error"].replace("'", "") == "propagation stopped: no memory is left"
    assert sorted(map(int, now["frames"])) == [1, 2]
    assert calls[-3:] == [1, 2, 3]
    assert take(client, "name", segments=[1], name="sky").status_code == 200
    studio.desks[0].close()
    again = Session(folder)
    assert sorted(again.state.frames) == [1, 2]
    again.close()


def test_no_step_while_something_is_computed_but_stop(
    client: Any, studio: Studio, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(client, "accept", frame=0, accepted=True)
    real, may_go_on = studio.model.see, threading.Event()

    def see(frames: Any, number: int, num_frames: int) -> Any:
        if number == 2:
            may_go_on.wait(20)
        return real(frames, number, num_frames)

    monkeypatch.setattr(studio.model, "see", see)
    take(client, "propagate", frame=0, backwards=False)
    refused = take(client, "name", segments=[1], name="sky")
    assert refused.status_code == 409
    assert "propagation is under way" in refused.text
    for step in ("export", "save", "score", "undo"):
        refused = take(client, step, format="numpy", frames=False)
        assert (refused.status_code, "propagation is under way" in refused.text) == (409, True)
    assert not (folder.parents[1] / "exports").exists()
    assert client.post(f"{VIDEO}/stop", json={}).status_code == 200
    may_go_on.set()
    assert len(finished(client)["frames"]) < 5
    said = take(client, "export", format="numpy", frames=False).json()["said"]
    np.testing.assert_array_equal(np.load(Path(said["folder"]) / "bands" / "ids.npy")[1], ids_of(client, 1))


def test_undo_outlives_the_studio(client: Any, studio: Studio, folder: Path) -> None:
    take(client, "name", segments=[1], name="sky")
    take(client, "merge", segments=[2, 3], into=3)
    studio.desks[0].close()
    again = Studio([open_desk(folder)], studio.model, {})
    page = testclient.TestClient(application(again, TOKEN, PORT), base_url=HOME)
    page.headers["authorization"] = f"token {TOKEN}"
    assert (state(page)["undo"], state(page)["merged"]) == ("merge", {"2": 3})
    assert take(page, "undo").json()["state"]["merged"] == {}
    assert take(page, "undo").json()["state"]["named"] == []
    assert take(page, "undo").status_code == 409
    assert take(page, "redo").json()["state"]["segments"][0]["name"] == "sky"
    again.desks[0].close()


def test_a_frame_that_many_others_have_passed_by_may_be_asked_for_again(
    client: Any, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    def superseded(number: int) -> bytes:
        raise SupersededError

    monkeypatch.setattr(studio.desks[0].session().frames, "jpeg", superseded)
    assert client.get(f"{VIDEO}/frames/3").status_code == 503


def test_save_and_export_are_what_is_shown(client: Any, folder: Path) -> None:
    take(client, "name", segments=[1], name="sky")
    take(client, "merge", segments=[2, 3], into=3)
    assert state(client)["saved"] is False
    said = take(client, "export", format="numpy", frames=False).json()["said"]
    assert Path(said["folder"]) == folder.parents[1] / "exports" / "bands-numpy"
    exported = np.load(Path(said["folder"]) / "bands" / "ids.npy")
    for number in range(NUM_FRAMES):
        np.testing.assert_array_equal(exported[number], ids_of(client, number))
    np.testing.assert_array_equal(Predictions.read(folder).mask(0), LABELS_THW[0] + 1)
    assert take(client, "save").json()["state"]["saved"] is True
    np.testing.assert_array_equal(Predictions.read(folder).mask(2), ids_of(client, 2))
    again = take(client, "export", format="numpy", frames=False).json()["said"]
    assert again["folder"].endswith("bands-numpy-2")
    assert take(client, "export", format="word", frames=False).status_code == 400
    assert take(client, "score").status_code == 400
    take(client, "accept", frame=1, accepted=True)
    assert take(client, "score").json()["said"]["mIoU"] == 1
    assert client.get(f"{VIDEO}/score").status_code == 405


def test_a_video_that_is_being_segmented(tmp_path: Path) -> None:
    folder = write_video(tmp_path)
    masks = {path.name: path.read_bytes() for path in (folder / "masks").iterdir()}
    content = (folder / "segments.json").read_bytes()
    for path in (*(folder / "masks").iterdir(), folder / "segments.json"):
        path.unlink()
    segmenting = Segmenting([str(tmp_path / "nowhere")])
    live = Live(tmp_path / "frames" / "bands", folder.parent, segmenting)
    desk = open_desk(folder)
    desk.live = live
    studio = Studio([desk], toy_model(), {})
    client = testclient.TestClient(application(studio, TOKEN, PORT), base_url=HOME)
    client.headers["authorization"] = f"token {TOKEN}"
    assert client.get(VIDEO).json()["live"] is True
    assert client.get(f"{VIDEO}/masks/0/original").status_code == 404
    assert client.get(f"{VIDEO}/masks/0/000000-0000001.png").status_code == 409
    (folder / "masks" / "00000.png").write_bytes(masks["00000.png"])
    (folder / "masks" / "00001.png").write_bytes(masks["00001.png"][:-9])  # being written
    now = state(client)
    assert now["live"]["done"] == 1
    assert [segment["id"] for segment in now["segments"]] == [1, 2, 3]
    assert dict(now["frames"]["0"]["areas"])[1] == (LABELS_THW[0] == 0).sum()
    assert client.get(f"{VIDEO}/frames/5").status_code == 200
    assert take(client, "name", segments=[1], name="sky").status_code == 409
    segmenting._process.wait()
    assert "nowhere not found" in state(client)["live"]["problem"]
    for name, mask in masks.items():
        (folder / "masks" / name).write_bytes(mask)
    (folder / "segments.json").write_text(json.dumps(json.loads(content) | {"complete": False}))
    assert state(client)["live"]["done"] == NUM_FRAMES, "a run that was interrupted is not the whole one"
    (folder / "segments.json").write_bytes(content)
    assert state(client)["live"] is None
    assert client.get(VIDEO).json()["live"] is False
    assert take(client, "name", segments=[1], name="sky").status_code == 200
    segmenting.stop()
    desk.close()
    studio.model.close()
