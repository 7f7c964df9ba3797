"""Drives the official Python clients against providers of other protocols: one line per check."""

import json
import sys

import anthropic
import boto3
import botocore.config
import botocore.exceptions
import cohere
import openai
from google import genai
from google.genai import errors, types

base = sys.argv[1]
UPSTREAMS = ["openai-chat", "anthropic-messages", "gemini-generate-content"]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
OSLO = {"city": "Oslo"}
RESULT = "22 degrees"
TEXT = "Hallo Welt"


def check(name, condition, detail=""):
    print(f"{'ok' if condition else 'FAILED'} {name} {detail}")
    if not condition:
        sys.exit(1)


class Chat:
    name, limited = "openai-chat", openai.RateLimitError

    def __init__(self, url):
        self.client = openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0)

    def ask(self, messages, streamed):
        """The text, the calls as (id, name, arguments), and the message to send back."""
        tool = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
        arguments = {"model": "m", "messages": messages}
        if "weather" in str(messages):
            arguments["tools"] = [tool]
        if streamed:
            with self.client.chat.completions.stream(**arguments) as stream:
                for _ in stream:
                    pass
                message = stream.get_final_completion().choices[0].message
        else:
            message = self.client.chat.completions.create(**arguments).choices[0].message
        calls = [
            (c.id, c.function.name, json.loads(c.function.arguments)) for c in message.tool_calls or []
        ]
        return message.content, calls, [message.model_dump(exclude_none=True, exclude={"parsed"})]

    def prompt(self, text):
        return [{"role": "user", "content": text}]

    def result(self, call):
        return [{"role": "tool", "tool_call_id": call[0], "content": RESULT}]


class Responses(Chat):
    name = "openai-responses"

    def ask(self, messages, streamed):
        arguments = {"model": "m", "input": messages}
        if "weather" in str(messages):
            arguments["tools"] = [
                {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}
            ]
        if streamed:
            with self.client.responses.stream(**arguments) as stream:
                for event in stream:
                    if event.type == "error":
                        raise RuntimeError(event.message)
                response = stream.get_final_response()
        else:
            response = self.client.responses.create(**arguments)
        if response.status == "failed":
            raise RuntimeError(response.error)
        check("completed", response.status == "completed", response.status)
        calls = [
            (item.call_id, item.name, json.loads(item.arguments))
            for item in response.output
            if item.type == "function_call"
        ]
        back = [
            {"type": "function_call", "call_id": c[0], "name": c[1], "arguments": json.dumps(c[2])}
            for c in calls
        ]
        return response.output_text, calls, back

    def result(self, call):
        return [{"type": "function_call_output", "call_id": call[0], "output": RESULT}]


class Claude(Chat):
    name, limited = "anthropic-messages", anthropic.RateLimitError

    def __init__(self, url):
        self.client = anthropic.Anthropic(base_url=url, api_key="k", max_retries=0)

    def ask(self, messages, streamed):
        arguments = {"model": "m", "max_tokens": 50, "messages": messages}
        if "weather" in str(messages):
            arguments["tools"] = [{"name": "weather", "input_schema": SCHEMA}]
        if streamed:
            with self.client.messages.stream(**arguments) as stream:
                message = stream.get_final_message()
        else:
            message = self.client.messages.create(**arguments)
        check("tokens", (message.usage.input_tokens, message.usage.output_tokens) == (10, 2))
        text = "".join(block.text for block in message.content if block.type == "text")
        calls = [(b.id, b.name, b.input) for b in message.content if b.type == "tool_use"]
        check("stop reason", message.stop_reason == ("tool_use" if calls else "end_turn"))
        return text, calls, [{"role": "assistant", "content": message.content}]

    def result(self, call):
        block = {"type": "tool_result", "tool_use_id": call[0], "content": RESULT}
        return [{"role": "user", "content": [block]}]


class Gemini(Chat):
    name, limited = "gemini-generate-content", errors.ClientError

    def __init__(self, url):
        options = types.HttpOptions(base_url=url)
        self.client = genai.Client(api_key="k", http_options=options)

    def ask(self, messages, streamed):
        tool = types.Tool(
            function_declarations=[
                types.FunctionDeclaration(name="weather", parameters_json_schema=SCHEMA)
            ]
        )
        has_tools = "weather" in str(messages)
        config = types.GenerateContentConfig(
            tools=[tool] if has_tools else None,
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        )
        arguments = {"model": "m", "contents": messages, "config": config}
        models = self.client.models
        if streamed:
            answers = list(models.generate_content_stream(**arguments))
        else:
            answers = [models.generate_content(**arguments)]
        reason = answers[-1].candidates[0].finish_reason
        check("finish reason", reason == types.FinishReason.STOP, reason)
        parts = [
            part
            for answer in answers
            for candidate in answer.candidates or []
            for part in (candidate.content and candidate.content.parts) or []
        ]
        text = "".join(part.text or "" for part in parts)
        calls = [
            (part.function_call.id, part.function_call.name, part.function_call.args)
            for part in parts
            if part.function_call
        ]
        return text, calls, [types.Content(role="model", parts=parts)]

    def prompt(self, text):
        return [types.Content(role="user", parts=[types.Part(text=text)])]

    def result(self, call):
        response = types.FunctionResponse(id=call[0], name=call[1], response={"output": RESULT})
        return [types.Content(role="user", parts=[types.Part(function_response=response)])]


class Cohere(Chat):
    name, limited = "cohere-chat", cohere.TooManyRequestsError

    def __init__(self, url):
        self.client = cohere.ClientV2(api_key="k", base_url=url)

    def ask(self, messages, streamed):
        tool = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
        arguments = {"model": "m", "messages": messages, "request_options": {"max_retries": 0}}
        if "weather" in str(messages):
            arguments["tools"] = [tool]
        if streamed:
            return self.read(self.client.chat_stream(**arguments))
        message = self.client.chat(**arguments).message
        text = "".join(block.text for block in message.content or [] if block.type == "text")
        calls = [
            (c.id, c.function.name, json.loads(c.function.arguments)) for c in message.tool_calls or []
        ]
        return text, calls, self.back(calls)

    def read(self, events):
        text, calls, end = "", [], None
        for event in events:
            if event.type == "content-delta":
                text += event.delta.message.content.text or ""
            elif event.type == "tool-call-start":
                call = event.delta.message.tool_calls
                calls.append([call.id, call.function.name, call.function.arguments or ""])
            elif event.type == "tool-call-delta":
                calls[-1][2] += event.delta.message.tool_calls.function.arguments
            elif event.type == "message-end":
                end = event.delta.finish_reason
        if end not in ("COMPLETE", "TOOL_CALL"):
            raise RuntimeError(f"no finished message: {end}")
        calls = [(call[0], call[1], json.loads(call[2])) for call in calls]
        return text, calls, self.back(calls)

    def back(self, calls):
        calls = [
            {"id": c[0], "type": "function", "function": {"name": c[1], "arguments": json.dumps(c[2])}}
            for c in calls
        ]
        return [{"role": "assistant", "tool_calls": calls}]


class Bedrock(Chat):
    name, limited = "bedrock-converse", botocore.exceptions.ClientError

    def __init__(self, url):
        self.client = boto3.client(
            "bedrock-runtime",
            region_name="us-east-1",
            endpoint_url=url,
            aws_access_key_id="a",
            aws_secret_access_key="b",
            config=botocore.config.Config(retries={"total_max_attempts": 1}),
        )

    def ask(self, messages, streamed):
        arguments = {"modelId": "m", "messages": messages}
        if "weather" in str(messages):
            tool = {"toolSpec": {"name": "weather", "inputSchema": {"json": SCHEMA}}}
            arguments["toolConfig"] = {"tools": [tool]}
        if streamed:
            blocks, reason = self.read(self.client.converse_stream(**arguments)["stream"])
        else:
            answer = self.client.converse(**arguments)
            blocks, reason = answer["output"]["message"]["content"], answer["stopReason"]
        text = "".join(block.get("text", "") for block in blocks)
        calls = [
            (b["toolUse"]["toolUseId"], b["toolUse"]["name"], b["toolUse"]["input"])
            for b in blocks
            if "toolUse" in b
        ]
        check("stop reason", reason == ("tool_use" if calls else "end_turn"), reason)
        return text, calls, [{"role": "assistant", "content": blocks}]

    def read(self, events):
        blocks, reason = [], None
        for event in events:
            if "contentBlockStart" in event:
                blocks.append({"toolUse": {**event["contentBlockStart"]["start"]["toolUse"], "input": ""}})
            elif "contentBlockDelta" in event:
                delta = event["contentBlockDelta"]["delta"]
                if "text" in delta:
                    blocks.append({"text": delta["text"]})
                else:
                    blocks[-1]["toolUse"]["input"] += delta["toolUse"]["input"]
            elif "messageStop" in event:
                reason = event["messageStop"]["stopReason"]
        for block in blocks:
            if "toolUse" in block:
                block["toolUse"]["input"] = json.loads(block["toolUse"]["input"])
        return blocks, reason

    def prompt(self, text):
        return [{"role": "user", "content": [{"text": text}]}]

    def result(self, call):
        result = {"toolUseId": call[0], "content": [{"text": RESULT}]}
        return [{"role": "user", "content": [{"toolResult": result}]}]


def is_limited(client, error):
    """Whether the client's class for errors of rate limits, or its code, says so."""
    if isinstance(client, Gemini):
        return isinstance(error, errors.ClientError) and error.code == 429
    if isinstance(client, Bedrock):
        return type(error).__name__ == "ThrottlingException"
    return isinstance(error, client.limited)


def refused(call):
    """What `call` raises."""
    try:
        answer = call()
    except Exception as error:  # each client has classes of its own
        return error
    check("refused", False, repr(answer))


def drive(client, pair):
    for streamed in (False, True):
        name = f"{pair}{', streamed' if streamed else ''}:"
        text, calls, _ = client.ask(client.prompt("What is up?"), streamed)
        check(f"{name} text", (text, calls) == (TEXT, []), repr((text, calls)))
        messages = client.prompt("How is the weather in Oslo?")
        _, calls, back = client.ask(messages, streamed)
        check(f"{name} call", [call[1:] for call in calls] == [("weather", OSLO)], repr(calls))
        messages = messages + back + client.result(calls[0])
        text, calls, _ = client.ask(messages, streamed)
        check(f"{name} result", (text, calls) == (TEXT, []), repr((text, calls)))
        error = refused(lambda: client.ask(client.prompt("limit me"), streamed))
        check(f"{name} limit", is_limited(client, error) and "slow down" in str(error), repr(error))
    error = refused(lambda: client.ask(client.prompt("cut me"), True))
    told = "ended" in str(error) or str(error) == "no finished message: ERROR"
    check(f"{pair}: cut", told, repr(error))


for kind in (Chat, Responses, Claude, Gemini, Cohere, Bedrock):
    for upstream in UPSTREAMS:
        if upstream != kind.name:
            drive(kind(f"{base}/{upstream}"), f"{kind.name} to {upstream}")
print("all checks passed")
