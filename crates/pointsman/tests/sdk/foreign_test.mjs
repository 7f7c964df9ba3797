// Drives the official Node clients against providers of other protocols: one line per check.
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const base = process.argv[2];
const upstreams = ["openai-chat", "anthropic-messages", "gemini-generate-content"];
const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const result = "22 degrees";

function check(name, condition, detail = "") {
  console.log(`${condition ? "ok" : "FAILED"} ${name} ${detail}`);
  if (!condition) process.exit(1);
}

function openai(url) {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "k", maxRetries: 0 });
  const tools = [{ type: "function", function: { name: "weather", parameters: schema } }];
  return {
    limited: OpenAI.RateLimitError,
    async ask(messages, streamed) {
      const request = { model: "m", messages, tools };
      const completions = client.chat.completions;
      const answer = streamed
        ? await completions.stream(request).finalChatCompletion()
        : await completions.create(request);
      const message = answer.choices[0].message;
      const calls = (message.tool_calls ?? []).map((call) => ({
        id: call.id,
        name: call.function.name,
        input: JSON.parse(call.function.arguments),
      }));
      return { text: message.content ?? "", calls, back: message };
    },
    result: (id) => ({ role: "tool", tool_call_id: id, content: result }),
  };
}

function anthropic(url) {
  const client = new Anthropic({ baseURL: url, apiKey: "k", maxRetries: 0 });
  const tools = [{ name: "weather", input_schema: schema }];
  return {
    limited: Anthropic.RateLimitError,
    async ask(messages, streamed) {
      const request = { model: "m", max_tokens: 50, messages, tools };
      const message = streamed
        ? await client.messages.stream(request).finalMessage()
        : await client.messages.create(request);
      const text = message.content.filter((block) => block.type === "text");
      const calls = message.content.filter((block) => block.type === "tool_use");
      const back = { role: "assistant", content: message.content };
      return { text: text.map((block) => block.text).join(""), calls, back };
    },
    result: (id) => ({
      role: "user",
      content: [{ type: "tool_result", tool_use_id: id, content: result }],
    }),
  };
}

async function refused(name, promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  check(name, false, "it looked complete");
}

async function drive(client, pair) {
  const user = (content) => [{ role: "user", content }];
  for (const streamed of [false, true]) {
    const name = `${pair}, ${streamed ? "streamed" : "whole"}:`;
    // The provider calls the tool for a prompt that has its name, which its definition has, too.
    const messages = user("How is the weather in Oslo?");
    const { calls, back } = await client.ask(messages, streamed);
    const call = calls[0];
    check(`${name} call`, calls.length === 1 && call.name === "weather" && call.input.city === "Oslo");
    const last = await client.ask([...messages, back, client.result(call.id)], streamed);
    check(`${name} result`, last.text === "Hallo Welt" && last.calls.length === 0, last.text);
    const error = await refused(`${name} limit`, client.ask(user("limit me"), streamed));
    check(`${name} limit`, error instanceof client.limited, error.constructor.name);
  }
  const error = await refused(`${pair}: cut`, client.ask(user("cut me"), true));
  check(`${pair}: cut`, error.message.includes("ended"), `${error.constructor.name} ${error.message}`);
}

for (const [name, make] of [["openai-chat", openai], ["anthropic-messages", anthropic]]) {
  for (const upstream of upstreams.filter((upstream) => upstream !== name)) {
    await drive(make(`${base}/${upstream}`), `${name} to ${upstream}`);
  }
}
console.log("all checks passed");
