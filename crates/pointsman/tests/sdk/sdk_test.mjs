// Drives the official Node client against a gateway: one line per check, non-zero exit on failure.
import OpenAI from "openai";

const base = process.argv[2];
const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: "team-key", maxRetries: 0 });

function check(name, condition, detail = "") {
  console.log(`${condition ? "ok" : "FAILED"} ${name} ${detail}`);
  if (!condition) process.exit(1);
}

const messages = [{ role: "user", content: "Hi" }];
const chat = await client.chat.completions.create({ model: "m", messages });
check("chat", chat.choices[0].message.content === "Hello there" && chat.usage.total_tokens === 12);

let text = "";
for await (const chunk of await client.chat.completions.create({ model: "m", messages, stream: true })) {
  text += chunk.choices[0]?.delta?.content ?? "";
}
check("chat streamed", text === "Hello there", text);

const tools = await client.chat.completions.create({
  model: "tools",
  messages,
  tools: [{ type: "function", function: { name: "weather", parameters: { type: "object" } } }],
});
check("tools", tools.choices[0].message.tool_calls[0].function.name === "weather");

const embedding = await client.embeddings.create({ model: "e", input: ["a", "b"], encoding_format: "float" });
check("embeddings", embedding.data.length === 2);

const response = await client.responses.create({ model: "m", input: "Hi" });
check("responses", response.output_text === "Hello there");

let last;
for await (const event of await client.responses.create({ model: "m", input: "Hi", stream: true })) last = event;
check("responses streamed", last.type === "response.completed", last.type);

for (const [model, kind] of [
  ["status-401", OpenAI.AuthenticationError],
  ["status-404", OpenAI.NotFoundError],
  ["status-429", OpenAI.RateLimitError],
  ["status-500", OpenAI.InternalServerError],
]) {
  try {
    await client.chat.completions.create({ model, messages });
    check(model, false, "no error");
  } catch (error) {
    check(model, error instanceof kind, error.constructor.name);
  }
}

try {
  for await (const _ of await client.chat.completions.create({ model: "broken", messages, stream: true }));
  check("broken stream", false, "it looked complete");
} catch (error) {
  check("broken stream", true, error.constructor.name);
}
console.log("all checks passed");
