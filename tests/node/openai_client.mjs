// npm's openai client, unmodified, against `cminfer serve` on the bundled model: what users of the
// client rely on. Reads CMI_CMINFER (the binary) and CMI_MODELS.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { after, before, test } from 'node:test';
import OpenAI from 'openai';

const MODEL = 'matrix-tiny';
const KEY = 'test-key';
const AUTHORIZED = { authorization: `Bearer ${KEY}` };
const DEADLINE_MS = 60000;

const WEATHER = {
  type: 'function',
  function: {
    name: 'get_weather',
    description: 'Get the weather of a city',
    parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
  },
};
const SUM = [{ role: 'user', content: 'What is 457 + 825?' }];
const STORY = [{ role: 'user', content: 'A story with a eel, please.' }];
const GREEDY = { model: MODEL, temperature: 0 };

let server; // the one that most tests use
let client;

function freePort() {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.on('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

// Starts a server on a free port and resolves when /readiness says 200.
async function serve(...options) {
  const port = await freePort();
  const child = spawn(process.env.CMI_CMINFER, [
    'serve', `${process.env.CMI_MODELS}/${MODEL}`, '--port', String(port), '--api-key', KEY,
    ...options,
  ], { stdio: ['ignore', 'inherit', 'inherit'] });
  const origin = `http://127.0.0.1:${port}`;
  await eventually('readiness', () => {
    assert.equal(child.exitCode, null, 'cminfer has ended');
    return fetch(`${origin}/readiness`).then((r) => r.ok, () => false);
  });
  return { child, origin };
}

// SIGTERM must end a server cleanly.
async function stop({ child }) {
  const ended = new Promise((resolve) => child.once('exit', (...how) => resolve(how)));
  child.kill('SIGTERM');
  assert.deepEqual(await ended, [0, null]);
}

const connect = ({ origin }, options) =>
  new OpenAI({ baseURL: `${origin}/v1`, apiKey: KEY, maxRetries: 0, ...options });

// The value of a metric's first sample whose labels hold all of the given pairs.
async function metric(name, ...labels) {
  return metricOf(server, name, ...labels);
}

async function metricOf({ origin }, name, ...labels) {
  const text = await fetch(`${origin}/metrics`, { headers: AUTHORIZED })
    .then((r) => r.text());
  const line = text.split('\n')
    .find((l) => l.startsWith(`${name}{`) && labels.every((label) => l.includes(label)));
  assert.ok(line, `no metric ${name}`);
  return Number(line.slice(line.lastIndexOf(' ') + 1));
}

// Polls until the condition holds.
async function eventually(what, condition) {
  const deadline = Date.now() + DEADLINE_MS;
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, `${what} did not happen in time`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const join = (chunks, key) => chunks.map((c) => c.choices[0]?.delta?.[key] ?? '').join('');

before(async () => {
  server = await serve('--served-model-name', MODEL);
  client = connect(server);
});

after(() => stop(server));

test('models are listed and found', async () => {
  const { data } = await client.models.list();
  assert.equal(data[0].id, MODEL);
  assert.equal(data[0].object, 'model');
  assert.equal(data[0].max_model_len, 2048);
  assert.equal((await client.models.retrieve(MODEL)).id, MODEL);
  await assert.rejects(client.models.retrieve('other'), OpenAI.NotFoundError);
});

test('a chat answers, with its reasoning apart and its usage', async () => {
  const { data: answer, response } = await client.chat.completions
    .create({ ...GREEDY, messages: SUM }, { headers: { 'X-Request-Id': 'my-id' } }).withResponse();
  assert.equal(response.headers.get('x-request-id'), 'my-id');
  assert.match(answer.id, /^chatcmpl-/);
  assert.equal(answer.object, 'chat.completion');
  assert.equal(answer.model, MODEL);
  assert.equal(answer.choices.length, 1);
  const { message, finish_reason: reason } = answer.choices[0];
  assert.equal(message.role, 'assistant');
  assert.equal(message.content, '457 + 825 = 1282');
  assert.match(message.reasoning_content, /ones 7\+5=12, write 2 carry 1/);
  assert.equal(message.reasoning, message.reasoning_content);
  assert.equal(reason, 'stop');
  const { usage } = answer;
  assert.equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
  assert.ok(usage.completion_tokens_details.reasoning_tokens > 0);
});

test('a streamed chat is the same answer in pieces', async () => {
  const whole = await client.chat.completions.create({ ...GREEDY, messages: SUM });
  const chunks = await collect(await client.chat.completions.create({
    ...GREEDY, messages: SUM, stream: true, stream_options: { include_usage: true },
  }));
  assert.equal(chunks[0].object, 'chat.completion.chunk');
  assert.equal(chunks[0].choices[0].delta.role, 'assistant');
  assert.equal(new Set(chunks.map((c) => c.id)).size, 1);
  assert.equal(join(chunks, 'content'), whole.choices[0].message.content);
  assert.equal(join(chunks, 'reasoning_content'), whole.choices[0].message.reasoning_content);
  assert.deepEqual(chunks.at(-1).choices, []);
  assert.deepEqual(chunks.at(-1).usage, whole.usage);
  assert.equal(chunks.at(-2).choices[0].finish_reason, 'stop');
});

test('a tool is called, and its output answered', async () => {
  const messages = [{ role: 'user', content: 'Tell me the weather of Málaga.' }];
  const first = await client.chat.completions.create({ ...GREEDY, messages, tools: [WEATHER] });
  const { message, finish_reason: reason } = first.choices[0];
  assert.equal(reason, 'tool_calls');
  assert.equal(message.content, null);
  assert.equal(message.tool_calls.length, 1);
  const [call] = message.tool_calls;
  assert.equal(call.type, 'function');
  assert.equal(call.function.name, 'get_weather');
  assert.deepEqual(JSON.parse(call.function.arguments), { city: 'Málaga' });

  const chunks = await collect(await client.chat.completions.create({
    ...GREEDY, messages, tools: [WEATHER], stream: true,
  }));
  const deltas = chunks.flatMap((c) => c.choices[0].delta.tool_calls ?? []);
  assert.equal(deltas[0].function.name, 'get_weather');
  assert.ok(deltas[0].id);
  assert.equal(deltas.map((d) => d.function.arguments ?? '').join(''), call.function.arguments);
  assert.equal(chunks.at(-1).choices[0].finish_reason, 'tool_calls');

  const second = await client.chat.completions.create({
    ...GREEDY, tools: [WEATHER],
    messages: [...messages, message,
      { role: 'tool', tool_call_id: call.id, content: '{"temperature": 9, "sky": "foggy"}' }],
  });
  assert.equal(second.choices[0].message.content, 'It is foggy in Málaga, 9 degrees.');
});

test('the tool runner of the client works', async () => {
  const runner = client.chat.completions.runTools({
    ...GREEDY,
    messages: [{ role: 'user', content: 'Tell me the weather of Málaga.' }],
    tools: [{
      type: 'function',
      function: {
        ...WEATHER.function,
        parse: JSON.parse,
        function: ({ city }) => ({ temperature: 9, sky: city === 'Málaga' ? 'foggy' : 'unknown' }),
      },
    }],
  });
  assert.match(await runner.finalContent(), /foggy in Málaga/);
});

test('logprobs come for chats and completions', async () => {
  const chat = await client.chat.completions.create({
    ...GREEDY, messages: SUM, logprobs: true, top_logprobs: 3, max_tokens: 5,
  });
  const { content } = chat.choices[0].logprobs;
  assert.equal(content.length, 5);
  for (const entry of content) {
    assert.equal(entry.top_logprobs.length, 3);
    assert.equal(entry.top_logprobs[0].logprob, entry.logprob); // greedy takes the first
    assert.ok(entry.logprob <= 0 && entry.top_logprobs[1].logprob <= entry.logprob);
    assert.equal(Buffer.from(entry.bytes).toString(), entry.token);
  }
  const text = await client.completions.create({
    ...GREEDY, prompt: 'To be or not', logprobs: 2, max_tokens: 4,
  });
  const { tokens, token_logprobs: logprobs, top_logprobs: top, text_offset: offsets } =
    text.choices[0].logprobs;
  assert.equal(tokens.length, 4);
  assert.equal(tokens.join(''), text.choices[0].text);
  assert.equal(logprobs.length, 4);
  assert.ok(top.every((entry) => Object.keys(entry).length >= 2));
  assert.equal(offsets.length, 4);
});

test('stop strings end an answer before they are shown', async () => {
  const answer = await client.chat.completions.create({
    ...GREEDY, messages: SUM, stop: [' = '],
  });
  assert.equal(answer.choices[0].finish_reason, 'stop');
  assert.equal(answer.choices[0].message.content, '457 + 825');
  assert.equal(answer.choices[0].stop_reason, ' = ');
  const chunks = await collect(await client.chat.completions.create({
    ...GREEDY, messages: SUM, stop: ' = ', stream: true,
  }));
  assert.equal(join(chunks, 'content'), '457 + 825');
});

test('n choices come apart, and max_tokens cuts them', async () => {
  const request = {
    model: MODEL, messages: STORY, temperature: 1.5, n: 3, max_tokens: 20, seed: 7,
  };
  const answer = await client.chat.completions.create(request);
  assert.deepEqual(answer.choices.map((c) => c.index), [0, 1, 2]);
  assert.ok(answer.choices.every((c) => c.finish_reason === 'length'));
  assert.equal(answer.usage.completion_tokens, 60);
  const texts = answer.choices
    .map(({ message }) => (message.reasoning_content ?? '') + (message.content ?? ''));
  assert.ok(new Set(texts).size > 1);

  const chunks = await collect(await client.chat.completions.create({ ...request, stream: true }));
  for (const index of [0, 1, 2]) {
    const own = chunks.filter((c) => c.choices[0].index === index);
    assert.equal(join(own, 'reasoning_content') + join(own, 'content'), texts[index]);
  }
});

test('a seed gives the same answer again, another one does not', async () => {
  const ask = (seed) => client.completions.create({
    model: MODEL, prompt: 'Once', temperature: 1.5, max_tokens: 30, seed,
  }).then((r) => r.choices[0].text);
  const first = await ask(11);
  assert.equal(await ask(11), first);
  assert.notEqual(await ask(12), first);
});

test('completions take strings, lists and ids, echo them, and count', async () => {
  const echo = await client.completions.create({
    ...GREEDY, prompt: 'To be or not', echo: true, max_tokens: 3,
  });
  assert.match(echo.id, /^cmpl-/);
  assert.equal(echo.object, 'text_completion');
  assert.ok(echo.choices[0].text.startsWith('To be or not'));
  assert.equal(echo.usage.completion_tokens, 3);

  const many = await client.completions.create({
    ...GREEDY, prompt: ['To be', 'or not'], n: 2, max_tokens: 2,
  });
  assert.deepEqual(many.choices.map((c) => c.index), [0, 1, 2, 3]);
  assert.equal(many.choices[0].text, many.choices[1].text);

  const { tokens } = await fetch(`${server.origin}/tokenize`, {
    method: 'POST', headers: AUTHORIZED,
    body: JSON.stringify({ model: MODEL, prompt: 'To be or not' }),
  }).then((r) => r.json());
  const ids = await client.completions.create({ ...GREEDY, prompt: tokens, max_tokens: 3 });
  assert.equal(`To be or not${ids.choices[0].text}`, echo.choices[0].text);

  const chunks = await collect(await client.completions.create({
    ...GREEDY, prompt: tokens, max_tokens: 3, stream: true,
  }));
  assert.equal(chunks.map((c) => c.choices[0].text).join(''), ids.choices[0].text);
});

test('an aborted stream stops the work', async () => {
  const aborted = await metric('vllm:request_success_total', 'finished_reason="abort"');
  const controller = new AbortController();
  const stream = await client.chat.completions.create({
    model: MODEL, messages: STORY, stream: true, max_tokens: 1500, ignore_eos: true,
  }, { signal: controller.signal });
  let n = 0;
  for await (const chunk of stream) {
    assert.ok(chunk.choices);
    if (++n === 5) controller.abort();
  }
  assert.ok(n < 1000);
  await eventually('the abort',
    async () => await metric('vllm:request_success_total', 'finished_reason="abort"') > aborted);
  await eventually('an idle engine', async () => await metric('vllm:num_requests_running') === 0);
  const tokens = await metric('vllm:generation_tokens_total');
  await client.models.list();
  assert.equal(await metric('vllm:generation_tokens_total'), tokens);
});

test('an aborted request that waits leaves the queue', async () => {
  const small = await serve('--max-num-seqs', '1');
  const clientOfSmall = connect(small);
  const first = new AbortController();
  const busy = clientOfSmall.chat.completions.create({
    model: MODEL, messages: STORY, max_tokens: 1500, ignore_eos: true,
  }, { signal: first.signal }).catch((e) => e);
  const is = (name, n) => async () => await metricOf(small, name) === n;
  await eventually('a running request', is('vllm:num_requests_running', 1));
  const second = new AbortController();
  const queued = clientOfSmall.chat.completions.create({ ...GREEDY, messages: SUM },
    { signal: second.signal }).catch((e) => e);
  await eventually('a waiting request', is('vllm:num_requests_waiting', 1));
  second.abort();
  assert.ok(await queued instanceof OpenAI.APIUserAbortError);
  await eventually('an empty queue', is('vllm:num_requests_waiting', 0));
  first.abort();
  assert.ok(await busy instanceof OpenAI.APIUserAbortError);
  await eventually('an idle engine', is('vllm:num_requests_running', 0));
  await stop(small);
});

test('errors have the classes that the client knows', async () => {
  const chat = (request) => client.chat.completions
    .create({ ...GREEDY, messages: SUM, ...request });
  const rejects = async (promise, kind, status, type) => {
    await assert.rejects(promise, (e) => {
      assert.ok(e instanceof kind, `${e}`);
      assert.equal(e.status, status);
      assert.equal(e.type, type);
      assert.ok(e.error.message.length > 0);
      return true;
    });
  };
  await rejects(chat({ temperature: -1 }), OpenAI.BadRequestError, 400, 'BadRequestError');
  await rejects(chat({ messages: 'x' }), OpenAI.BadRequestError, 400, 'BadRequestError');
  await rejects(chat({ max_tokens: 'many' }), OpenAI.BadRequestError, 400, 'BadRequestError');
  await rejects(chat({ messages: [{ role: 'user', content: 'a b '.repeat(4000) }] }),
    OpenAI.BadRequestError, 400, 'BadRequestError');
  await rejects(chat({ model: 'other' }), OpenAI.NotFoundError, 404, 'NotFoundError');
  await rejects(client.embeddings.create({ model: MODEL, input: 'x' }), OpenAI.NotFoundError, 404,
    'NotFoundError');
  await rejects(connect(server, { apiKey: 'wrong' }).models.list(), OpenAI.AuthenticationError, 401,
    'AuthenticationError');
});

test('a full queue is a RateLimitError, after which the client may try again', async (t) => {
  const small = await serve('--max-num-queued-reqs', '1', '--max-num-seqs', '1');
  t.after(() => stop(small));
  const hasty = connect(small);
  const controller = new AbortController();
  const long = { model: MODEL, messages: STORY, max_tokens: 1500, ignore_eos: true };
  const asked = Array.from({ length: 4 }, () => hasty.chat.completions
    .create(long, { signal: controller.signal }).catch((e) => e));
  const refused = await Promise.race(asked);
  assert.ok(refused instanceof OpenAI.RateLimitError, `${refused}`);
  assert.equal(refused.status, 429);
  assert.match(refused.headers.get('retry-after'), /^[1-9][0-9]?$/);
  const patient = connect(small, { maxRetries: 10 }).chat.completions
    .create({ ...GREEDY, messages: SUM, max_tokens: 1 });
  controller.abort();
  await Promise.all(asked);
  assert.equal((await patient).usage.completion_tokens, 1);
});

test('many clients at once are all served, and alike', async () => {
  const answers = await Promise.all(Array.from({ length: 20 }, () => client.chat.completions
    .create({ ...GREEDY, messages: SUM, max_tokens: 3 })));
  const texts = answers.map((a) => a.choices[0].message.reasoning_content);
  assert.equal(new Set(texts).size, 1);
});
