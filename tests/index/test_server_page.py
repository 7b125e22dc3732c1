"""The page in a real browser: drop a picture, see its look-alikes, follow one, filter, go back; by hand and by keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from seeall.index import query
from seeall.index.server.guard import Limits
from tests.index import browser as chromium
from tests.index.browser import Browser
from tests.index.served import Place, index_at, network, photos, served

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium.PROGRAM is None, reason="no Chromium here: apt-get install chromium"),
]
READY = "document.querySelector('#grid').getAttribute('aria-busy') === 'false' && document.querySelector('#grid a')"
IDS = "[...document.querySelectorAll('#grid a')].map(a => Number(a.dataset.id))"
QUERY = "document.querySelector('#query h1').textContent"
FOCUS = "Number(document.activeElement.dataset.id || 0)"
SEEN = "[...document.querySelectorAll('#grid img')].slice(0, 4).every(i => i.complete && i.naturalWidth > 0)"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return index_at(tmp_path_factory.mktemp("page"), 60)


@pytest.fixture(scope="module")
def place(index: Path) -> Iterator[Place]:
    with served(index) as place:
        yield place


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture
def browser(opened: Browser) -> Iterator[Browser]:
    opened.errors.clear()
    opened.look(width=1280, height=900)
    yield opened
    assert opened.errors == []


def photo(index: Path, n: int) -> Path:
    return index.parent / f"secret-home/photos/{('cat', 'dog')[n % 2]}/{n:03d}.png"


def nearest(index: Path, asked: Path | int, k: int = 24) -> list[int]:
    """What the command says."""
    (found,) = query.search(index, [str(asked)], k, gpu="off")
    return [match["id"] for match in found["matches"]]


def test_a_visit(browser: Browser, place: Place, index: Path) -> None:
    browser.open(place.url)
    browser.until(READY)
    assert browser.do(IDS) == list(range(1, 25)) and browser.do("document.title") == "photos.index · seeall"
    browser.until(SEEN)

    browser.drop(photo(index, 31))  # drop: its look-alikes, the nearest first, with scores and metadata
    browser.until(f"location.search.startsWith('?picture=') && {READY} && {QUERY} === '031.png'")
    found = nearest(index, photo(index, 31))
    assert browser.do(IDS) == found and found[0] == 32
    first = browser.do("document.querySelector('#grid a').innerText")
    assert "dog" in first and "031.png" in first and "camera: c1" in first and "1.000" in first
    browser.until("document.querySelector('#query img').naturalWidth === 60")

    browser.click("#grid li:nth-child(3) a")  # follow one: its own look-alikes, itself the first of them
    browser.until(f"location.search === '?id={found[2]}' && {READY} && {QUERY}.includes('{found[2] - 1:03d}.png')")
    assert browser.do(IDS) == nearest(index, found[2]) and browser.do(IDS)[0] == found[2]
    assert "camera" in browser.do("document.querySelector('#query dl').innerText")

    browser.click("#next")  # a page further
    browser.until(
        f"location.search.includes('page=2') && {READY} && document.querySelector('#number').textContent === 'Page 2'"
    )
    assert browser.do(IDS) == nearest(index, found[2], 48)[24:]

    for address, ids in ((f"?id={found[2]}", nearest(index, found[2])), ("?picture=", found), ("", list(range(1, 25)))):
        browser.do("history.back()")
        browser.until(
            f"location.search.startsWith('{address}') && {READY} && String({IDS}) === '{','.join(map(str, ids))}'"
        )
    browser.do("history.forward()")
    browser.until(f"location.search.startsWith('?picture=') && {READY} && {QUERY} === '031.png'")
    assert browser.do(IDS) == found

    browser.send("Page.reload")  # the picture is kept, small, for as long as the tab is open
    browser.until(f"location.search.startsWith('?picture=') && {READY}")
    assert browser.do(IDS)[0] == 32

    browser.open(f"{place.url}/?id=7")  # an address can be sent to others
    browser.until(f"{READY} && {QUERY}.includes('006.png')")
    assert browser.do(IDS) == nearest(index, 7)
    browser.click("#away")
    browser.until(f"location.search === '' && {READY} && document.querySelector('#query').hidden")


def test_a_picture_that_is_chosen_or_pasted(browser: Browser, place: Place, index: Path) -> None:
    browser.open(place.url)
    browser.until(READY)
    root = browser.send("DOM.getDocument")["root"]["nodeId"]
    node = browser.send("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    browser.send("DOM.setFileInputFiles", nodeId=node, files=[str(photo(index, 12))])
    browser.until(f"location.search.startsWith('?picture=') && {READY} && {QUERY} === '012.png'")
    assert browser.do(IDS)[0] == 13
    browser.do(
        "fetch('/v1/items/22/thumb?side=60').then(a => a.blob()).then(b => { const d = new DataTransfer();"
        " d.items.add(new File([b], 'pasted.jpg', { type: 'image/jpeg' }));"
        " document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: d, bubbles: true })); })"
    )
    browser.until(f"{READY} && {QUERY} === 'pasted.jpg'")
    assert browser.do(IDS)[0] == 22


def test_by_keys_alone(browser: Browser, place: Place, index: Path) -> None:
    browser.open(place.url)
    browser.until(READY)
    across = browser.do(
        "[...document.querySelectorAll('#grid a')].filter((a, n, all) => a.offsetTop === all[0].offsetTop).length"
    )
    places = []
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp", "ArrowUp"):
        browser.key(key)
        places.append(browser.do(FOCUS))
    assert across > 2 and places == [1, 2, 2 + across, 1 + across, 1, 1]
    browser.key("ArrowRight")
    browser.key("Enter")
    browser.until(f"location.search === '?id=2' && {READY} && {QUERY}.includes('001.png')")
    assert browser.do(FOCUS) == 2  # the hand stays among the pictures
    browser.key("n")
    browser.until(f"location.search === '?id=2&page=2' && {READY}")
    browser.key("p")
    browser.until(f"location.search === '?id=2' && {READY}")


def test_filter(browser: Browser, place: Place, index: Path) -> None:
    browser.open(place.url)
    browser.until(READY)
    browser.key("/")
    assert browser.do("document.activeElement.id") == "where"
    browser.type("label = 'dog'")
    browser.key("Enter")
    browser.until(f"location.search.includes('where=') && {READY} && {IDS}[0] === 2")
    assert browser.do(IDS) == list(range(2, 50, 2)) and "30 pictures" in browser.do("document.body.innerText")
    browser.key("Escape")
    browser.drop(photo(index, 30))
    browser.until(f"location.search.includes('picture=') && {READY} && {QUERY} === '030.png'")
    assert all(i % 2 == 0 for i in browser.do(IDS)) and len(browser.do(IDS)) == 24
    browser.do("history.back()")
    browser.until(f"!location.search.includes('picture=') && {READY} && {IDS}[0] === 2")
    browser.do("history.back()")
    browser.until(f"location.search === '' && {READY} && {IDS}[0] === 1")
    assert browser.do("document.querySelector('#where').value") == ""
    browser.open(f"{place.url}/?where=label+%3D+(")
    browser.until("document.querySelector('#status').classList.contains('bad')")
    assert "label" in browser.do("document.querySelector('#status').textContent")
    assert [line for line in browser.errors if " 422 " not in line] == []
    browser.errors.clear()


def test_what_goes_wrong_is_said(browser: Browser, place: Place, tmp_path: Path) -> None:
    browser.open(f"{place.url}/?id=999")
    browser.until("document.querySelector('#status').textContent === 'there is no item 999'")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    browser.drop(tmp_path / "broken.png")
    browser.until("document.querySelector('#status').textContent.startsWith('this is no picture')")
    (tmp_path / "words.txt").write_text("nothing")
    browser.drop(tmp_path / "words.txt")
    browser.until("document.querySelector('#status').textContent === 'That is no picture.'")
    assert all(" 404 " in line or " 422 " in line for line in browser.errors)
    browser.errors.clear()


@pytest.mark.parametrize(("width", "phone", "dark"), [(1280, False, False), (390, True, True), (320, True, False)])
def test_fits_and_is_named(browser: Browser, place: Place, width: int, phone: bool, dark: bool) -> None:
    """Nothing sticks out of the screen, everything that can be pressed is large enough and has a name."""
    browser.look(width=width, height=844, dark=dark, phone=phone)
    for address in ("/", "/?id=3"):
        browser.open(place.url + address)
        browser.until(READY)
        assert browser.do("document.documentElement.scrollWidth") <= width
        assert browser.do("getComputedStyle(document.body).backgroundColor") == (
            "rgb(21, 21, 23)" if dark else "rgb(246, 246, 247)"
        )
        small = browser.do(
            "[...document.querySelectorAll('button, a, input:not(.away)')].filter(e => e.offsetParent)"
            ".filter(e => e.getBoundingClientRect().height < 40).map(e => e.id || e.outerHTML)"
        )
        assert small == []
        nodes = browser.send("Accessibility.getFullAXTree")["nodes"]
        pressed = [
            n for n in nodes if n.get("role", {}).get("value") in ("link", "button", "searchbox", "textbox", "img")
        ]
        pressed = [n for n in pressed if not n.get("ignored")]
        assert len(pressed) > 20 and all(n.get("name", {}).get("value") for n in pressed)


def test_a_token_is_asked_for(browser: Browser, index: Path) -> None:
    with served(index, Limits(token="a-long-secret-token")) as place:
        browser.open(place.url)
        browser.until("document.querySelector('#ask').open")
        browser.type("wrong-token")
        browser.key("Enter")
        browser.until("document.querySelector('#token').value === '' && document.querySelector('#ask').open")
        browser.type("a-long-secret-token")
        browser.key("Enter")
        browser.until(f"{READY} && {SEEN}")
        browser.click("#grid li:nth-child(2) a")
        browser.until(f"location.search === '?id=2' && {READY} && {SEEN}")
    assert all(" 401 " in line for line in browser.errors)
    browser.errors.clear()


def test_nothing_from_elsewhere(browser: Browser, place: Place) -> None:
    browser.open(place.url)
    browser.until(READY)
    browser.until("performance.getEntriesByType('resource').length > 5")
    asked = browser.do("performance.getEntriesByType('resource').map(e => e.name)")
    assert all(address.startswith(place.url) for address in asked)
    page = place.get("/")
    policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy and "default-src 'none'" in policy and "http" not in policy
    refused = browser.do(
        "new Promise(done => {"
        " addEventListener('securitypolicyviolation', e => done(e.violatedDirective), { once: true });"
        " const s = document.createElement('script'); s.textContent = 'window.harm = 1'; document.body.append(s); })"
    )
    assert refused.startswith("script-src") and browser.do("window.harm === undefined")
    browser.do("0")  # what was said meanwhile has come in
    browser.errors.clear()


def test_a_face_is_named(browser: Browser, tmp_path: Path) -> None:
    from seeall.data.decode import decode
    from seeall.data.pictures import find
    from seeall.index.faces import gallery
    from seeall.index.faces.enrol import enrol

    run = network(tmp_path / "net.safetensors")
    photos(tmp_path / "people", 8)
    photos(tmp_path / "strangers", 30, first=100)
    with gallery.Gallery.create(tmp_path / "g", run) as made:
        enrol(made, find(str(tmp_path / "people")), None)
        others = sorted((tmp_path / "strangers").rglob("*.png"))
        made.calibrate(made.see([decode(path) for path in others]), [path.stem for path in others], 0.1)
    with served(tmp_path / "g") as place:
        told = place.post("/v1/faces/identify", others[0].read_bytes()).json["faces"]
        assert [person["name"] for person in place.get("/v1/faces/people").json["people"]] == ["cat", "dog"]
        browser.open(place.url)
        browser.until(READY)
        browser.drop(tmp_path / "people/dog/003.png")
        browser.until("document.querySelector('#who').textContent.startsWith('dog 1.0')")
        stranger = next(
            path
            for path in others
            if place.post("/v1/faces/identify", path.read_bytes()).json["faces"][0]["person"] is None
        )
        browser.drop(stranger)
        browser.until("document.querySelector('#who').textContent === 'unknown'")
    assert len(told) == 1
