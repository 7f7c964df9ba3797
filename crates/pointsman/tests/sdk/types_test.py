"""Checks requests as they reached providers against the vendors' own types: a line per fault.

The argument is a file with one JSON object a line: `pair`, `target`, `path`, `headers`, `body`.
"""

import json
import sys
import typing

import pydantic

# Iterables would be checked only once they are read, which nobody does.
typing.Iterable = typing.List

import anthropic.types.message_create_params as claude_params
import botocore.auth
import botocore.awsrequest
import botocore.credentials
import botocore.session
import botocore.validate
import cohere
import openai.types.chat.completion_create_params as chat_params
import openai.types.responses.response_create_params as responses_params
from google.genai import types as google

for name, module in list(sys.modules.items()):
    if name.startswith(("openai.types", "anthropic.types")):
        for kind in list(vars(module).values()):
            if hasattr(kind, "__required_keys__"):
                kind.__pydantic_config__ = pydantic.ConfigDict(
                    extra="forbid", arbitrary_types_allowed=True
                )

CHAT = pydantic.TypeAdapter(chat_params.CompletionCreateParams)
RESPONSES = pydantic.TypeAdapter(responses_params.ResponseCreateParams)
CLAUDE = pydantic.TypeAdapter(claude_params.MessageCreateParams)
List = typing.List
Optional = typing.Optional


class Gemini(pydantic.BaseModel, extra="forbid"):
    contents: List[google.Content]
    systemInstruction: Optional[google.Content] = None
    generationConfig: Optional[google.GenerationConfig] = None
    tools: Optional[List[google.Tool]] = None
    toolConfig: Optional[google.ToolConfig] = None
    safetySettings: Optional[List[google.SafetySetting]] = None


class Cohere(pydantic.BaseModel, extra="forbid"):
    model: str
    messages: List[cohere.ChatMessageV2]
    stream: Optional[bool] = None
    tools: Optional[List[cohere.ToolV2]] = None
    tool_choice: Optional[typing.Literal["REQUIRED", "NONE"]] = None
    strict_tools: Optional[bool] = None
    documents: Optional[list] = None
    response_format: Optional[cohere.ResponseFormatV2] = None
    thinking: Optional[cohere.Thinking] = None
    max_tokens: Optional[int] = None
    stop_sequences: Optional[List[str]] = None
    temperature: Optional[float] = None
    p: Optional[float] = None
    k: Optional[int] = None
    seed: Optional[int] = None
    frequency_penalty: Optional[float] = None
    presence_penalty: Optional[float] = None
    logprobs: Optional[bool] = None


BEDROCK = botocore.session.get_session().get_service_model("bedrock-runtime")


def extras(value, path=""):
    """Keys that a model kept without knowing them."""
    if isinstance(value, pydantic.BaseModel):
        for key in value.model_extra or {}:
            yield f"unknown {path}.{key}"
        for key in type(value).model_fields:
            yield from extras(getattr(value, key), f"{path}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from extras(item, f"{path}[{index}]")


def check_chat(sent):
    # A picture in a tool's result has no place in the vendor's type; those of other vendors take it.
    for message in sent["body"]["messages"]:
        if message["role"] == "tool" and isinstance(message["content"], list):
            parts = message["content"]
            message["content"] = [part for part in parts if part["type"] != "image_url"]
    CHAT.validate_python(sent["body"])


def check_responses(sent):
    RESPONSES.validate_python(sent["body"])


def check_claude(sent):
    # The type is of the newest models; those before them take sampling, too.
    sampling = ("temperature", "top_p", "top_k")
    CLAUDE.validate_python({k: v for k, v in sent["body"].items() if k not in sampling})


def check_gemini(sent):
    return list(extras(Gemini.model_validate(sent["body"])))


def check_cohere(sent):
    return list(extras(Cohere.model_validate(sent["body"])))


def check_bedrock(sent):
    shape = BEDROCK.operation_model("Converse").input_shape
    model = sent["path"].split("/")[2]
    report = botocore.validate.ParamValidator().validate({"modelId": model, **sent["body"]}, shape)
    faults = [report.generate_report()] if report.has_errors() else []
    return faults + signature_faults(sent)


def signature_faults(sent):
    """What botocore's signer, given the same date, says otherwise."""
    headers = {key.lower(): value for key, value in sent["headers"]}
    parts = dict(
        part.split("=", 1) for part in headers["authorization"].split(" ", 1)[1].split(", ")
    )
    signed = {name: headers[name] for name in parts["SignedHeaders"].split(";")}
    request = botocore.awsrequest.AWSRequest(
        "POST", f"http://{headers['host']}{sent['path']}", signed, sent["raw"].encode()
    )
    date = headers["x-amz-date"]
    request.context["timestamp"] = date
    credentials = botocore.credentials.Credentials("a", "b")
    signer = botocore.auth.SigV4Auth(credentials, "bedrock", "us-east-1")
    canonical = signer.canonical_request(request)
    theirs = signer.signature(signer.string_to_sign(request, canonical), request)
    return [] if theirs == parts["Signature"] else [f"signature: {canonical}"]


CHECKS = {
    "openai-chat": check_chat,
    "openai-responses": check_responses,
    "anthropic-messages": check_claude,
    "gemini-generate-content": check_gemini,
    "cohere-chat": check_cohere,
    "bedrock-converse": check_bedrock,
}


def faults(sent):
    try:
        return CHECKS[sent["target"]](sent) or []
    except pydantic.ValidationError as error:
        return [str(error)]


def spoil(body):
    """Puts a key that nobody knows into the first message, if there are any."""
    for key in ("messages", "contents", "input"):
        if isinstance(body.get(key), list):
            body[key][0]["unheard_of"] = 1
            return True
    return False


count = 0
failed = False
with open(sys.argv[1]) as lines:
    for line in lines:
        sent = json.loads(line)
        sent["body"] = json.loads(sent["raw"])
        count += 1
        for fault in faults(sent):
            failed = True
            print(f"{sent['pair']}: {fault}\n  in {sent['raw'][:3000]}")
        if spoil(sent["body"]) and not faults(sent):
            failed = True
            print(f"{sent['pair']}: an unknown key is not noticed")
if failed:
    sys.exit(1)
print(f"{count} requests checked")
