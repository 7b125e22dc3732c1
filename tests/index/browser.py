"""A real Chromium without a window, driven over its debugging port; no more of the protocol than the tests need."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 20.0


class Browser:
    """One page. folder: where the browser keeps its own things."""

    def __init__(self, folder: Path, size: tuple[int, int] = (1280, 900)) -> None:
        from websockets.sync.client import connect

        assert PROGRAM
        self._process = subprocess.Popen(
            [
                PROGRAM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0",
                "--remote-allow-origins=*", f"--user-data-dir={folder}",
                f"--window-size={size[0]},{size[1]}", "about:blank",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._open = contextlib.ExitStack()
        self._open.callback(self._end)
        self.errors: list[str] = []
        self._numbers = itertools.count(1)
        try:
            self._socket = self._open.enter_context(connect(self._page(folder), max_size=None))
            for domain in ("Page", "Runtime", "Log", "DOM"):
                self.send(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def _page(self, folder: Path) -> str:
        """Where the one page listens."""
        told = folder / "DevToolsActivePort"
        until = time.monotonic() + PATIENCE
        while not (told.exists() and len(told.read_text().splitlines()) == 2):
            assert self._process.poll() is None and time.monotonic() < until, "the browser does not start"
            time.sleep(0.05)
        port = told.read_text().splitlines()[0]
        while True:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=PATIENCE) as answer:
                pages = [page for page in json.load(answer) if page["type"] == "page"]
            if pages:
                return str(pages[0]["webSocketDebuggerUrl"])
            assert time.monotonic() < until, "the browser has no page"

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        self._open.close()

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            told = json.loads(self._socket.recv(PATIENCE))
            if told.get("id") == number:
                assert "error" not in told, (method, told)
                result: dict[str, Any] = told["result"]
                return result
            about = told.get("params", {})
            if told.get("method") == "Runtime.exceptionThrown":
                self.errors.append(str(about["exceptionDetails"]))
            elif told.get("method") == "Log.entryAdded" and about["entry"]["level"] == "error":
                self.errors.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")

    def open(self, address: str) -> None:
        self.send("Page.navigate", url=address)

    def do(self, script: str) -> Any:
        """What an expression is worth on the page."""
        told = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + PATIENCE
        while not self.do(f"document.readyState === 'complete' && !!({script})"):
            assert time.monotonic() < end, (
                f"never: {script}; {self.do('document.body.innerText')[:400]!r}, {self.errors}"
            )
            time.sleep(0.05)

    def drop(self, file: Path) -> None:
        """Let go of a file over the page, as a hand would."""
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.send("Input.dispatchDragEvent", type=kind, x=300, y=300, data=data)

    def key(self, key: str) -> None:
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        codes = {"Enter": 13, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Escape": 27, "Tab": 9}
        code = codes.get(key, ord(key.upper()) if len(key) == 1 else 0)
        about = {"key": key, "windowsVirtualKeyCode": code, **({"text": text} if text else {})}
        self.send("Input.dispatchKeyEvent", type="keyDown", **about)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def type(self, text: str) -> None:
        self.send("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        place = self.do(
            f"(() => {{ const e = document.querySelector({selector!r}); e.scrollIntoView({{block: 'center'}});"
            " const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def look(self, *, width: int, height: int, dark: bool = False, phone: bool = False) -> None:
        """Be a screen of that size, in px."""
        scale = 2 if phone else 1
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )  # fmt: skip
        self.send("Emulation.setTouchEmulationEnabled", enabled=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def shot(self, file: Path) -> None:
        """What is to be seen, as a PNG."""
        file.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))
