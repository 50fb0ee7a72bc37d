// The official OpenAI client for JavaScript against the gateway: `node client.mjs CASE BASE_URL`.
// Exit status 0 means that the case holds; each case is one sentence of test_npm.py.
import assert from "node:assert/strict";

import OpenAI from "openai";

const [name, baseURL] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "not-needed", maxRetries: 0, timeout: 30_000 });
const ask = {
  model: "sim",
  messages: [{ role: "user", content: "hello" }],
  max_tokens: 8,
  ignore_eos: true,
};

async function textOf(stream) {
  let text = "";
  let reason = null;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
    reason = chunk.choices[0]?.finish_reason ?? reason;
  }
  return [text, reason];
}

const cases = {
  async models() {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    assert.deepEqual(ids, ["sim"]);
  },

  async chat() {
    const answer = await client.chat.completions.create(ask);
    assert.ok(answer.choices[0].message.content);
    assert.equal(answer.usage.completion_tokens, 8);
  },

  async stream() {
    const whole = await client.chat.completions.create({ ...ask, temperature: 0 });
    const stream = await client.chat.completions.create({ ...ask, temperature: 0, stream: true });
    const [text, reason] = await textOf(stream);
    assert.equal(text, whole.choices[0].message.content);
    assert.equal(reason, "length");
  },

  async usage() {
    const stream = await client.chat.completions.create({
      ...ask,
      stream: true,
      stream_options: { include_usage: true },
    });
    let usage = null;
    for await (const chunk of stream) usage = chunk.usage ?? usage;
    assert.equal(usage.completion_tokens, 8);
  },

  async completions() {
    const answer = await client.completions.create({ model: "sim", prompt: "one two", max_tokens: 8, temperature: 0 });
    assert.ok(answer.choices[0].text);
  },

  async error() {
    await assert.rejects(
      client.chat.completions.create({ ...ask, model: "nothing" }),
      (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found",
    );
  },

  async raw() {
    const { response, request_id: id } = await client.chat.completions
      .create(ask, { headers: { "X-Request-Id": "from-npm" } })
      .withResponse();
    assert.equal(response.headers.get("x-request-id"), "from-npm");
    assert.equal(id, "from-npm");
  },

  async abort() {
    const stream = await client.chat.completions.create({ ...ask, max_tokens: 3000, stream: true });
    let seen = 0;
    for await (const _ of stream) {
      seen += 1;
      if (seen === 3) break;
    }
    assert.equal(seen, 3);
    assert.ok(stream.controller.signal.aborted);
  },

  async many() {
    const one = async () => {
      const stream = await client.chat.completions.create({ ...ask, temperature: 0, stream: true });
      return (await textOf(stream))[0];
    };
    const texts = await Promise.all(Array.from({ length: 50 }, one));
    assert.equal(new Set(texts).size, 1);
    assert.ok(texts[0]);
  },

  async large() {
    const answer = await client.chat.completions.create({ ...ask, user: "x".repeat(3_000_000) });
    assert.equal(answer.usage.completion_tokens, 8);
  },
};

await cases[name]();
