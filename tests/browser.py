"""A page in headless Chromium, driven over its DevTools protocol."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """One open page; ``messages`` are errors and warnings of its console, and violations of its policy."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.number = 0
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.session = ""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol; what else arrives is kept."""
        self.number += 1
        call: dict[str, Any] = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            call["sessionId"] = self.session
        self.socket.send(json.dumps(call))
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def receive(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.socket.recv(timeout=60))
        parameters = answer.get("params", {})
        if answer.get("method") == "Runtime.exceptionThrown":
            self.messages.append(str(parameters["exceptionDetails"]))
        elif answer.get("method") == "Log.entryAdded":
            self.messages.append(parameters["entry"]["text"])
        elif answer.get("method") == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.messages.append(str(parameters["args"]))
        elif answer.get("method") == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        return answer

    def open(self, path: Path) -> None:
        """Load a file and wait until it is there."""
        self.send("Page.navigate", url=path.absolute().as_uri())
        while self.receive().get("method") != "Page.loadEventFired":
            pass

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def settle(self) -> None:
        """Wait for two frames."""
        self.ask("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def type(self, selector: str, text: str) -> None:
        """Put text into a field, as a keyboard would."""
        self.ask(f"document.querySelector({json.dumps(selector)}).focus(), document.querySelector({json.dumps(selector)}).select?.()")
        if text:
            self.send("Input.insertText", text=text)
        else:
            self.key("Delete")
        self.settle()

    def key(self, name: str) -> None:
        """Press a key."""
        code = {"Enter": 13, "Escape": 27, "Tab": 9, "Delete": 46, "PageDown": 34, "End": 35, "ArrowDown": 40}[name]
        text = "\r" if name == "Enter" else None
        extra = {} if text is None else {"text": text}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=name, code=name, windowsVirtualKeyCode=code, **extra)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=name, code=name, windowsVirtualKeyCode=code)
        self.settle()

    def choose(self, selector: str, value: str) -> None:
        """Choose in a select."""
        quoted = json.dumps(selector)
        self.ask(f"(e => {{ e.value = {json.dumps(value)}; e.dispatchEvent(new Event('change')); }})(document.querySelector({quoted}))")
        self.settle()

    def picture(self, path: Path) -> None:
        """Write a screenshot."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def browser() -> Iterator[Page]:
    """A page of a fresh browser."""
    from websockets.sync.client import connect

    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--remote-debugging-port=0",
            "--window-size=1400,1000",
        ]
        command = [CHROMIUM, *flags, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        assert process.stderr is not None
        try:
            lines = iter(process.stderr.readline, "")
            address = next(found[1] for line in lines if (found := re.search(r"DevTools listening on (\S+)", line)))
            with connect(address, max_size=None, open_timeout=30) as socket:
                yield Page(socket)
        finally:
            process.kill()
            process.wait()
            process.stderr.close()
