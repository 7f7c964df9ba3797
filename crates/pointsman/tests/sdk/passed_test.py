"""Drives the official Python clients against APIs that are passed on: one line per check."""

import sys

import anthropic
import cohere
import openai

base = sys.argv[1]
client = openai.OpenAI(base_url=f"{base}/openai/v1", api_key="k", max_retries=0)
SOUND = ("a b.mp3", b"\0sound", "audio/mpeg")


def check(name, condition, detail=""):
    print(f"{'ok' if condition else 'FAILED'} {name} {detail}")
    if not condition:
        sys.exit(1)


heard = client.audio.transcriptions.create(model="other", file=SOUND)
check("transcription", heard.text == "Hello" and heard.usage.total_tokens == 3, repr(heard))

events = list(client.audio.transcriptions.create(model="other", file=SOUND, stream=True))
check("transcription streamed", [e.type for e in events] == ["transcript.text.delta", "transcript.text.done"])
check("transcription's text", events[-1].text == "Hello" and events[-1].usage.total_tokens == 3)

speech = client.audio.speech.create(model="other", voice="alloy", input="Hello")
check("speech", speech.content == b"\0spoken", repr(speech.content))

image = client.images.generate(model="other", prompt="a cat")
check("image", image.data[0].b64_json == "AAAA" and image.usage.total_tokens == 3)

edited = client.images.edit(
    model="other", prompt="a dog", image=[("1.png", b"\0one", "image/png"), ("2.png", b"\0two", "image/png")]
)
check("image edited", edited.data[0].b64_json == "BBBB")

result = client.moderations.create(model="other", input="bad").results[0]
check("moderation", result.flagged and result.categories.violence)

chunks = list(client.completions.create(model="other", prompt="Hi", stream=True))
text = "".join(c.choices[0].text for c in chunks if c.choices)
check("completion streamed", text == "Hello there" and chunks[-1].usage.total_tokens == 3, repr(text))

vectors = client.embeddings.create(model="other", input=["a", "b"], encoding_format="float")
check("embeddings", vectors.data[1].embedding == [0.5, -0.25])

# Errors of ours are read as those of the API.
try:
    client.audio.transcriptions.create(model="other", file=("a.mp3", b"x" * 5000, "audio/mpeg"))
    check("too large", False, "no error")
except openai.APIStatusError as error:
    check("too large", error.status_code == 413 and error.type == "invalid_request_error", repr(error))
    check("too large, in words", "maximum size 4000" in str(error))

ranked = cohere.ClientV2(api_key="k", base_url=f"{base}/cohere").rerank(
    model="other", query="q", documents=["a", "b"]
)
check("rerank", [r.index for r in ranked.results] == [1, 0] and ranked.meta.billed_units.search_units == 1)

claude = anthropic.Anthropic(base_url=f"{base}/anthropic", api_key="k", max_retries=0)
question = [{"role": "user", "content": "Hi"}]
counted = claude.messages.count_tokens(model="other", messages=question)
check("tokens counted", counted.input_tokens == 14)

try:
    claude.messages.count_tokens(model="other", messages=[{"role": "user", "content": "x" * 5000}])
    check("too much to count", False, "no error")
except anthropic.APIStatusError as error:
    kind = error.body["error"]["type"]
    check("too much to count", error.status_code == 413 and kind == "request_too_large", repr(error))

print("all checks passed")
