// Drives the official Node clients against APIs that are passed on: one line per check.
import Anthropic from "@anthropic-ai/sdk";
import OpenAI, { toFile } from "openai";

const base = process.argv[2];
const client = new OpenAI({ baseURL: `${base}/openai/v1`, apiKey: "k", maxRetries: 0 });

function check(name, condition, detail = "") {
  console.log(`${condition ? "ok" : "FAILED"} ${name} ${detail}`);
  if (!condition) process.exit(1);
}

async function refused(name, call, is) {
  try {
    await call();
    check(name, false, "no error");
  } catch (error) {
    check(name, is(error), `${error.constructor.name} ${error.message}`);
  }
}

const file = (text, name, type) => toFile(Buffer.from(text), name, { type });
const sound = () => file("\0sound", "a b.mp3", "audio/mpeg");

const heard = await client.audio.transcriptions.create({ model: "other", file: await sound() });
check("transcription", heard.text === "Hello" && heard.usage.total_tokens === 3, JSON.stringify(heard));

const events = [];
const hearing = await client.audio.transcriptions.create({ model: "other", file: await sound(), stream: true });
for await (const event of hearing) events.push(event);
const kinds = events.map((event) => event.type).join();
check("transcription streamed", kinds === "transcript.text.delta,transcript.text.done", kinds);
check("transcription's text", events[1].text === "Hello" && events[1].usage.total_tokens === 3);

const speech = await client.audio.speech.create({ model: "other", voice: "alloy", input: "Hello" });
const spoken = Buffer.from(await speech.arrayBuffer());
check("speech", spoken.equals(Buffer.from("\0spoken")), spoken.toString("hex"));

const image = await client.images.generate({ model: "other", prompt: "a cat" });
check("image", image.data[0].b64_json === "AAAA" && image.usage.total_tokens === 3);

const pictures = [await file("\0one", "1.png", "image/png"), await file("\0two", "2.png", "image/png")];
const edited = await client.images.edit({ model: "other", prompt: "a dog", image: pictures });
check("image edited", edited.data[0].b64_json === "BBBB");

const [result] = (await client.moderations.create({ model: "other", input: "bad" })).results;
check("moderation", result.flagged && result.categories.violence);

let text = "";
let usage;
for await (const chunk of await client.completions.create({ model: "other", prompt: "Hi", stream: true })) {
  text += chunk.choices[0]?.text ?? "";
  usage = chunk.usage ?? usage;
}
check("completion streamed", text === "Hello there" && usage.total_tokens === 3, text);

const vectors = await client.embeddings.create({ model: "other", input: ["a", "b"], encoding_format: "float" });
check("embeddings", vectors.data[1].embedding[1] === -0.25);

// Errors of ours are read as those of the API.
const large = await file("x".repeat(5000), "a.mp3", "audio/mpeg");
await refused(
  "too large",
  () => client.audio.transcriptions.create({ model: "other", file: large }),
  (error) =>
    error instanceof OpenAI.APIError &&
    error.status === 413 &&
    error.type === "invalid_request_error" &&
    error.message.includes("maximum size 4000"),
);

const claude = new Anthropic({ baseURL: `${base}/anthropic`, apiKey: "k", maxRetries: 0 });
const asked = (content) => ({ model: "other", messages: [{ role: "user", content }] });
const counted = await claude.messages.countTokens(asked("Hi"));
check("tokens counted", counted.input_tokens === 14);
await refused(
  "too much to count",
  () => claude.messages.countTokens(asked("x".repeat(5000))),
  (error) =>
    error instanceof Anthropic.APIError && error.status === 413 && error.error.error.type === "request_too_large",
);
console.log("all checks passed");
