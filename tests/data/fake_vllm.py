"""Stands in for `vllm serve MODEL --host … --port …`: OpenAI's API, answers that are known, a child process to leave behind.

--die ends at once with an error, --deaf never listens, --refuse WORD fails requests that hold the word, --slow SECONDS
between tokens. With VLLM_API_KEY set, callers must give it.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

parser = argparse.ArgumentParser()
parser.add_argument("command")
parser.add_argument("model")
parser.add_argument("--host")
parser.add_argument("--port", type=int)
parser.add_argument("--die", action="store_true")
parser.add_argument("--deaf", action="store_true")
parser.add_argument("--refuse", default="")
parser.add_argument("--slow", type=float, default=0.0)
options = parser.parse_args()

worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(json.dumps({"pid": os.getpid(), "worker": worker.pid, "argv": sys.argv, "env": dict(os.environ)}), flush=True)
if options.die:
    sys.exit("ValueError: not enough memory for the KV cache")
if options.deaf:
    time.sleep(600)


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.answer(200, {"data": [{"id": options.model}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = os.environ.get("VLLM_API_KEY")
        if key and self.headers["Authorization"] != f"Bearer {key}":
            return self.answer(401, {"error": {"message": "Unauthorized"}})
        said = body["messages"][-1]["content"]
        if options.refuse and options.refuse in said:
            return self.answer(400, {"error": {"message": "this one is refused"}})
        tokens = [f"{options.model} ", "heard ", said]
        usage = {"prompt_tokens": 1, "completion_tokens": len(tokens), "total_tokens": 1 + len(tokens)}
        if not body.get("stream"):
            message = {"role": "assistant", "content": "".join(tokens)}
            return self.answer(
                200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
            )
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for token in tokens:
            time.sleep(options.slow)
            self.event({"choices": [{"index": 0, "delta": {"content": token}}]})
        self.event({"choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")

    def event(self, chunk):
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.flush()

    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


ThreadingHTTPServer((options.host, options.port), Handler).serve_forever()
