"""The HTTP service: what it answers, what it refuses, and that it goes on."""

import asyncio
import http.client
import io
import json
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from flexunet_runtime.confidence import measure_confidence
from tests.dicom import picture, write_object
from tests.export.conftest import noise
from tests.handmade import bomb

pytest.importorskip("uvicorn")


def start(model, *options):
    """A service in a process of its own, and its port."""
    command = [sys.executable, "-m", "flexunet_runtime.server", str(model), "--port", "0", "--threads", "1", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    line = process.stderr.readline()
    assert "http://127.0.0.1:" in line, line
    return process, int(line.rpartition(":")[2])


@pytest.fixture(scope="module")
def served(exported):
    """The port of a service with small limits."""
    process, port = start(exported, "--max-body-mb", "1", "--max-megapixels", "1")
    yield port
    process.terminate()
    _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in said


def ask(port, path, body=None, **headers):
    """Status, headers and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET" if body is None else "POST", path, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.headers, content


def png(image, **options):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", **options)
    return buffer.getvalue()


def test_the_mask_is_that_of_the_runtime_for_each_kind_of_file(served, runtime, exported):
    model = runtime.Model(exported)
    for i, size in enumerate([(40, 50), (64, 64), (33, 90)]):
        image = noise(*size, 3, seed=i)
        status, headers, content = ask(served, "/mask", png(image))
        assert (status, headers["content-type"]) == (200, "image/png")
        got = Image.open(io.BytesIO(content))
        assert got.mode == "P"
        assert np.array_equal(np.asarray(got), model.predict(image))
        assert got.getpalette()[:12] == [level for color in model.colors for level in color]
    buffer = io.BytesIO()
    Image.fromarray(noise(30, 30)).save(buffer, format="JPEG")
    assert ask(served, "/mask", buffer.getvalue(), **{"Content-Type": "image/jpeg"})[0] == 200


def test_a_radiograph_in_dicom_is_an_image_too(served, runtime, exported, tmp_path):
    values = noise(40, 50).astype(np.uint16) * 16
    write_object(tmp_path / "a.dcm", "1.2.840.10008.5.1.4.1.1.1.1", **picture(values))
    content = (tmp_path / "a.dcm").read_bytes()
    status, _, answer = ask(served, "/mask", content, **{"Content-Type": "application/dicom"})
    model = runtime.Model(exported)
    assert status == 200
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer))), model.predict(model.read(tmp_path / "a.dcm")))
    assert ask(served, "/mask", content[:400])[0] == 400


def test_scores_count_the_mask_and_the_overlay_tints_it(served, runtime, exported):
    model, image = runtime.Model(exported), noise(40, 50, 3)
    mask = model.predict(image)
    scores = json.loads(ask(served, "/scores", png(image))[2])
    assert (scores["height"], scores["width"]) == (40, 50)
    assert [scores["classes"][name]["pixels"] for name in model.names] == [int((mask == i).sum()) for i in range(4)]
    assert sum(c["share"] for c in scores["classes"].values()) == pytest.approx(1)
    probabilities = model.probabilities(image)
    assert scores["classes"]["lung"]["largest_probability"] == pytest.approx(float(probabilities[3].max()), abs=1e-5)
    confidence = measure_confidence(probabilities, mask)
    assert scores["trust"] == pytest.approx(confidence.trust(never_empty=False), abs=1e-5)
    told = [scores["classes"][name]["expected_dice"] for name in model.names[1:]]
    assert told == pytest.approx(confidence.expected_dice[1:].tolist(), abs=1e-5)
    overlay = np.asarray(Image.open(io.BytesIO(ask(served, "/overlay", png(image))[2])))
    assert np.array_equal(overlay[mask == 0], image[mask == 0])
    assert np.array_equal(overlay, runtime.draw_overlay(image, mask, model.colors))
    for i in range(1, 4):  # borders are opaque
        tint = (0.65 * image[mask == i] + 0.35 * np.array(model.colors[i])).round()
        found = overlay[mask == i]
        assert (np.isclose(found, tint, atol=1) | (found == model.colors[i])).all()


def test_it_says_how_it_is_and_what_it_serves(served, exported):
    assert ask(served, "/health")[0] == 200
    ready = json.loads(ask(served, "/ready")[2])
    assert ready["model"] == exported.name
    assert len(ready["model_sha256"]) == 64
    assert json.loads(ask(served, "/model")[2])["image_size"] == [32, 32]
    ask(served, "/mask", png(noise(20, 20, 3)))
    text = ask(served, "/metrics")[2].decode()
    assert 'flexunet_requests_total{path="/mask",status="200"}' in text
    assert "flexunet_batch_images_bucket" in text
    assert "process_resident_memory_bytes" in text
    assert "flexunet_inside 0.0" in text


BROKEN = {
    "empty": (b"", {}, 400),
    "page": (b"<html>not an image</html>", {}, 415),
    "cut": (png(noise(60, 60, 3))[:4000], {}, 400),
    "glass": (png(noise(20, 20, 4)), {}, 400),
    "wide": (png(np.full((9, 9), 3000, np.uint16)), {}, 400),
    "bomb": (bomb(10_000, 10_000), {}, 413),
    "large bomb": (bomb(100_000, 16_000), {}, 413),
    "oversize": (bytes(1_100_000), {}, 413),
    "form": (b"a=1&" * 1000, {"Content-Type": "multipart/form-data; boundary=x"}, 415),
    "fields": (b"a=1&" * 200_000, {"Content-Type": "application/x-www-form-urlencoded"}, 415),
}


@pytest.mark.case("service")
@pytest.mark.parametrize("kind", BROKEN)
def test_a_bad_body_is_refused_and_the_next_is_served(served, kind):
    body, headers, expected = BROKEN[kind]
    status, _, content = ask(served, "/mask", body, **headers)
    assert status == expected
    said = json.loads(content)["error"]
    assert said
    assert " object at " not in said
    assert ask(served, "/mask", png(noise(20, 20, 3)))[0] == 200


def test_what_is_no_request_of_its_own_is_refused(served):
    assert ask(served, "/nothing")[0] == 404
    assert ask(served, "/../etc/passwd")[0] == 404
    assert ask(served, "/mask")[0] == 405
    assert ask(served, "/health", b"x")[0] == 405
    with socket.create_connection(("127.0.0.1", served)) as raw:
        raw.sendall(b"nonsense\r\n\r\n")
        assert b"400" in raw.recv(1000)
    # an oversize body of unknown length
    connection = http.client.HTTPConnection("127.0.0.1", served, timeout=30)
    connection.request("POST", "/mask", iter([bytes(200_000)] * 8), encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


@pytest.mark.case("service")
def test_clients_that_hang_up_hold_no_place(served):
    body = png(noise(60, 60, 3))
    head = f"POST /mask HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    for part in (head, head + body[:500], head + body):
        for _ in range(30):
            with socket.create_connection(("127.0.0.1", served)) as raw:
                raw.sendall(part)
    for _ in range(100):
        if b"flexunet_inside 0.0" in ask(served, "/metrics")[2]:
            break
        time.sleep(0.1)
    assert b"flexunet_inside 0.0" in ask(served, "/metrics")[2]
    assert ask(served, "/mask", body)[0] == 200


@pytest.mark.case("service")
@pytest.mark.parametrize("limit", [("--max-requests", "4"), ("--max-wait", "0.02")])
def test_many_clients_are_served_and_too_many_are_sent_away(exported, limit):
    process, port = start(exported, *limit)
    try:
        body = png(noise(300, 300, 3))
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda _: ask(port, "/mask", body), range(160)))
        found = {status for status, _, _ in answers}
        assert found == {200, 503}
        assert len({content for status, _, content in answers if status == 200}) == 1
        assert all(headers["retry-after"] == "1" for status, headers, _ in answers if status == 503)
        assert ask(port, "/mask", body)[0] == 200
    finally:
        process.kill()
        process.communicate()


@pytest.mark.case("service")
def test_sigterm_finishes_what_is_in_flight(exported):
    process, port = start(exported)
    body = png(noise(900, 900, 3))
    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(ask, port, "/mask", body) for _ in range(6)]
        while b"flexunet_inside 6.0" not in ask(port, "/metrics")[2] and not any(a.done() for a in answers):
            pass
        process.send_signal(signal.SIGTERM)
        assert [answer.result()[0] for answer in answers] == [200] * 6
    _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in said


@pytest.fixture
def slow(exported, runtime):
    """A service in this process, with a model that needs a while."""
    from flexunet_runtime.batching import Limits
    from flexunet_runtime.service import Service

    model = runtime.Model(exported, threads=1)
    apply = model.apply
    model.apply = lambda images: (time.sleep(0.3), apply(images))[1]
    return Service, model, Limits


def talk(service, messages, later=None):
    """The status of the answer to a POST whose messages come as given; then nothing, or the last one, after a while."""

    async def run():
        sent, left = [], list(messages)

        async def receive():
            if left:
                return left.pop(0)
            await asyncio.sleep(0.05 if later else 60)
            return later

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/mask", "headers": [], "query_string": b"",
                 "http_version": "1.1", "scheme": "http"}  # fmt: skip
        await service.app()(scope, receive, send)
        return sent[0]["status"]

    return asyncio.run(run())


@pytest.mark.case("service")
def test_a_body_that_does_not_come_is_given_up(slow):
    service_of, model, limits = slow
    service = service_of(model, limits(body_s=0.1))
    assert talk(service, [{"type": "http.request", "body": b"\x89PNG", "more_body": True}]) == 408


def test_a_prediction_that_nobody_waits_for_is_given_up(slow):
    service_of, model, limits = slow
    body = {"type": "http.request", "body": png(noise(20, 20, 3)), "more_body": False}
    assert talk(service_of(model, limits()), [body], later={"type": "http.disconnect"}) == 499
    assert talk(service_of(model, limits()), [body]) == 200


def test_what_waits_goes_together_where_sizes_agree(slow, runtime):
    service_of, model, limits = slow
    service, sizes = service_of(model, limits(batch=3)), []
    service._batcher.sizes = sizes.append

    async def run():
        small, large = noise(20, 20, 3), noise(30, 30, 3)
        images = [small, small, large, small, small, small]
        answers = await asyncio.gather(*(service._batcher.predict(image) for image in images))
        return [(answer.mask, model.predict(image)) for answer, image in zip(answers, images, strict=True)]

    assert all(np.array_equal(one, other) for one, other in asyncio.run(run()))
    assert sizes == [3, 1, 2]


def test_a_request_is_accepted_where_its_answer_will_come_in_time(slow):
    service_of, model, limits = slow
    service = service_of(model, limits(wait_s=1.0))
    for inside, pace, why in ((0, 9.0, ""), (1, 0.4, ""), (2, 0.4, "too many requests wait already"), (9, 0.0, "")):
        service._inside, service._batcher._small.pace = inside, pace
        assert service._why_not() == why
    service._inside = 0
    body = {"type": "http.request", "body": png(noise(20, 20, 3)), "more_body": False}
    before = service._batcher.pace
    assert talk(service, [body]) == 200
    assert 0 < service._batcher.pace != before


def test_an_engine_that_fails_is_said_to_and_the_next_is_served(slow):
    service_of, model, limits = slow
    works = model.apply

    def fails(images):
        raise RuntimeError("out of something")

    service = service_of(model, limits())
    body = {"type": "http.request", "body": png(noise(20, 20, 3)), "more_body": False}
    model.apply = fails
    with pytest.raises(RuntimeError):  # Starlette hands it on to the log of the server
        talk(service, [body])
    model.apply = works
    assert talk(service_of(model, limits()), [body]) == 200


def test_memory_that_runs_out_is_no_fault_of_the_image(slow, monkeypatch):
    service_of, model, limits = slow
    body = {"type": "http.request", "body": png(noise(20, 20, 3)), "more_body": False}
    monkeypatch.setattr(Image.Image, "load", _without_memory)
    assert talk(service_of(model, limits()), [body]) == 503


def _without_memory(self):
    raise MemoryError


def test_a_service_that_cannot_begin_says_why(exported, tmp_path, served):
    def words(*args):
        done = subprocess.run(
            [sys.executable, "-m", "flexunet_runtime.server", *map(str, args)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        return done.stderr

    assert "no such file" in words(tmp_path / "none.onnx")
    assert "cannot listen at" in words(exported, "--port", served)
    assert "limits must be above 0" in words(exported, "--batch", "0")


@pytest.mark.case("service")
@pytest.mark.slow
def test_a_thousand_requests_from_sixteen_clients_leave_no_error_and_no_memory(exported):
    process, port = start(exported)
    bodies = [png(noise(h, w, 3)) for h, w in ((64, 64), (128, 96), (200, 200), (32, 500), (300, 256))]

    def memory():
        line = next(x for x in ask(port, "/metrics")[2].decode().splitlines() if x.startswith("process_resident"))
        return float(line.split()[1])

    def many():
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda i: ask(port, "/mask", bodies[i % len(bodies)])[0], range(1000)))
        assert set(answers) == {200}

    try:
        for _ in range(3):  # until the largest batches have come together
            many()
        warm = memory()
        many()
        assert memory() < 1.1 * warm  # one image kept of each request would be more than twice
    finally:
        process.kill()
        process.communicate()
