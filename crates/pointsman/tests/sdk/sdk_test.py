"""Drives the official Python clients against a gateway: one line per check, non-zero exit on failure."""

import json
import sys

import anthropic
import openai

base = sys.argv[1]
client = openai.OpenAI(base_url=f"{base}/v1", api_key="team-key", max_retries=0)


def check(name, condition, detail=""):
    print(f"{'ok' if condition else 'FAILED'} {name} {detail}")
    if not condition:
        sys.exit(1)


chat = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}])
check("chat", chat.choices[0].message.content == "Hello there" and chat.usage.total_tokens == 12)

stream = client.chat.completions.create(
    model="m", messages=[{"role": "user", "content": "Hi"}], stream=True
)
chunks = list(stream)
text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
check("chat streamed", text == "Hello there", repr(text))
check("usage in the stream", any(c.usage and c.usage.total_tokens == 12 for c in chunks))

tools = client.chat.completions.create(
    model="tools",
    messages=[{"role": "user", "content": "weather?"}],
    tools=[{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}],
)
call = tools.choices[0].message.tool_calls[0]
check("tools", call.function.name == "weather" and json.loads(call.function.arguments) == {"city": "Oslo"})

embedding = client.embeddings.create(model="e", input=["a", "b"], encoding_format="float")
check("embeddings", len(embedding.data) == 2 and embedding.data[1].embedding == [0.5, -0.25])

response = client.responses.create(model="m", input="Hi")
check("responses", response.output_text == "Hello there" and response.usage.total_tokens == 12)

events = list(client.responses.create(model="m", input="Hi", stream=True))
check("responses streamed", events[-1].type == "response.completed", events[-1].type)
check("responses deltas", "".join(e.delta for e in events if e.type == "response.output_text.delta") == "Hello there")

for model, kind in [
    ("status-400", openai.BadRequestError),
    ("status-401", openai.AuthenticationError),
    ("status-404", openai.NotFoundError),
    ("status-429", openai.RateLimitError),
    ("status-500", openai.InternalServerError),
]:
    try:
        client.chat.completions.create(model=model, messages=[])
        check(f"openai {model}", False, "no error")
    except openai.APIStatusError as error:
        check(f"openai {model}", isinstance(error, kind), repr(error))
        check(f"openai {model} body", "scripted" in str(error))

try:
    openai.OpenAI(base_url=f"{base}/nowhere", api_key="k", max_retries=0).chat.completions.create(
        model="m", messages=[]
    )
    check("unknown route", False)
except openai.NotFoundError as error:
    check("unknown route", error.status_code == 404, repr(error))

try:
    list(client.chat.completions.create(model="broken", messages=[], stream=True))
    check("broken stream", False, "it looked complete")
except Exception as error:  # whatever the client makes of a connection that breaks off
    check("broken stream", True, type(error).__name__)

claude = anthropic.Anthropic(base_url=base, api_key="team-key", max_retries=0)
message = claude.messages.create(
    model="c", max_tokens=16, messages=[{"role": "user", "content": "Hi"}]
)
check("messages", message.content[0].text == "Hello there" and message.usage.output_tokens == 3)

with claude.messages.stream(
    model="c", max_tokens=16, messages=[{"role": "user", "content": "Hi"}]
) as streamed:
    text = "".join(streamed.text_stream)
    final = streamed.get_final_message()
check("messages streamed", text == "Hello there" and final.stop_reason == "end_turn", repr(text))

for model, kind in [
    ("status-401", anthropic.AuthenticationError),
    ("status-404", anthropic.NotFoundError),
    ("status-429", anthropic.RateLimitError),
    ("status-500", anthropic.InternalServerError),
]:
    try:
        claude.messages.create(model=model, max_tokens=1, messages=[{"role": "user", "content": "Hi"}])
        check(f"anthropic {model}", False, "no error")
    except anthropic.APIStatusError as error:
        check(f"anthropic {model}", isinstance(error, kind), repr(error))

print("all checks passed")
