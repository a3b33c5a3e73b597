// tokenizer_strings.mjs - strings that a tokenizer may meet, made from a seed.
import { readdirSync, readFileSync } from 'node:fs';

/** What String.toWellFormed does in newer Node: a lone surrogate becomes U+FFFD. */
export function wellFormed(text) {
  return text.replace(/\p{Surrogate}/gu, '\uFFFD');
}

/** A generator of random numbers (xorshift128), the same for a seed everywhere. */
export class Random {
  constructor(seed) {
    this.s = [seed >>> 0, 0x9e3779b9, 0x243f6a88, 0xb7e15162];
    for (let i = 0; i < 20; ++i) this.next();
  }

  next() {
    const s = this.s;
    let t = s[3];
    t ^= t << 11;
    t ^= t >>> 8;
    s[3] = s[2];
    s[2] = s[1];
    s[1] = s[0];
    s[0] = (t ^ s[0] ^ (s[0] >>> 19)) >>> 0;
    return s[0];
  }

  below(n) {
    return this.next() % n;
  }

  pick(list) {
    return list[this.below(list.length)];
  }

  /** 1 .. n, small numbers more often. */
  length(n) {
    return 1 + this.below(1 + this.below(n));
  }

  times(n, make, separator = '') {
    return Array.from({ length: n }, make).join(separator);
  }
}

const WORDS = {
  latin: `the of and to in is you that it he was for on are as with his they at be this have from or
    one had by word but not what all were we when your can said there use an each which she do how
    their if will up other about out many then them these so some her would make like him into time
    straße façade naïve coöperate Ærøskøbing piñata Łódź smørrebrød žluťoučký kůň Iğdır İstanbul
    don't we're I'll they've it's HTTPServer XMLHttpRequest snake_case_name camelCaseName A1 B2C`,
  cyrillic: `и в не на что он как это по но они мы этот она так его только для уже ты время было ещё
    человек год дело жизнь день рука раз глаз слово место лицо друг дом вопрос Київ їжак Ђорђе
    љубав`,
  greek: `και το να του η της με που στην για είναι από θα ο δεν τα μια έχει ήταν αλλά όταν καλημέρα
    κόσμε ἄνθρωπος φιλοσοφία λόγος ΑΘΗΝΑ Ὀδυσσεύς`,
  arabic: `في من على أن إلى هذا التي كان هذه الذي عن مع بعد كل لم قال بين ذلك العربية السلام عليكم
    مَرْحَبًا كِتَابٌ پارسی چهار گفت اردو ہے`,
  hebrew: `של את על לא הוא כי אני זה עם היא שלום עולם בְּרֵאשִׁית בָּרָא אֱלֹהִים ירושלים ספר בית`,
  devanagari: `के में की है से को और का पर यह कि एक नमस्ते दुनिया हिन्दी भाषा क्षत्रिय
    ज्ञान संस्कृतम् विद्यालय कर्म`,
  thai: `สวัสดี ชาวโลก ภาษาไทย ประเทศ น้ำ ผู้คน เชียงใหม่ กรุงเทพมหานคร อาหาร ความรัก ๑๒๓ ครับ`,
  han: `的 一 是 不 了 人 我 在 有 他 中文 世界 你好 机器学习 語言模型 東京都 龍
    㐀 鿿 龦 繁體字 深度求索 人工智能 𠀀𠮷`,
  kana: `の に は を た が で て と し れ さ ある いる こんにちは カタカナ ひらがな コンピューター ヴァイオリン
    ｶﾀｶﾅ ゟ ヿ ゞ 々`,
  hangul: `이 그 저 것 수 등 들 및 안녕하세요 세계 한국어 컴퓨터 대한민국 값 없다 ㄱㄴㄷ 각`,
  tamil: `வணக்கம் உலகம் தமிழ் மொழி நான் நீ அது இந்த`,
  georgian: `გამარჯობა მსოფლიო საქართველო ენა ᲡᲐᲥᲐᲠᲗᲕᲔᲚᲝ`,
  ethiopic: `ሰላም ልዑል አማርኛ ኢትዮጵያ`,
};
for (const script of Object.keys(WORDS)) {
  WORDS[script] = WORDS[script].trim().split(/\s+/);
}
const UNSPACED = new Set(['thai', 'han', 'kana']);
const MARKS = [', ', '. ', '; ', ' - ', '! ', '? ', ': ',
  '、', '。', '，', '！', '… ', ' – ', '«', '» ',
  '“', '” ', "'", ' (', ') ', '/', '।', '؟ ', '،', '\n', '\n\n', '\r\n', '  '];
const EMOJI = [
  '😀', '😂', '❤️', '🔥', '👍🏽', '👩‍💻', '👨‍👩‍👧‍👦', '🏳️‍🌈', '🏴󠁧󠁢󠁳󠁣󠁴󠁿', '🇩🇪', '🇯🇵🇫🇷',
  '1️⃣', '#️⃣', '☎︎', '⚙️', '🧑🏿‍🤝‍🧑🏻', '\u200d', '\ufe0f', '🤷‍♀️', '™', '©',
  '➡', '♞',
];
const SPACES = [' ', ' ', ' ', ' ', '\n', '\n', '\t', '\r', '\r\n', '\u00a0', '\u3000', '\u2028',
  '\u2003', '\v', '\f', '\u0085', '\u180e', '\u200b', '\ufeff', '\u1680', '\u202f', '\u205f',
  '\u001c', '\0'];
const DIGITS = ['0123456789', '0123456789', '٠١٢٣٤٥٦٧٨٩', '०१२३४५६७८९',
  '０１２３４５６７８９', '²³¹½¾⅓', 'ⅠⅣⅫ①⑳',
  '𝟎𝟏𝟐', '一二三〇'];

function prose(r) {
  const script = r.pick(Object.keys(WORDS));
  const gap = UNSPACED.has(script) && r.below(4) > 0 ? '' : ' ';
  let text = '';
  for (let n = r.length(40); n > 0; --n) {
    const words = r.below(12) === 0 ? WORDS[r.pick(Object.keys(WORDS))] : WORDS[script];
    text += r.pick(words) + (r.below(6) === 0 ? r.pick(MARKS) : gap);
  }
  return r.below(2) === 0 ? text.trimEnd() : text;
}

function numbers(r) {
  const number = () => {
    const digits = Array.from(r.pick(DIGITS));
    return r.times(r.length(12), () => r.pick(digits));
  };
  const before = ['', ' ', '-', '.', ',', '$', '%', 'e', '0x', ':', '\n', 'a'];
  return r.times(r.length(12), () => r.pick(before) + number());
}

function codePoint(r) {
  const top = r.pick([0x7f, 0x250, 0x3000, 0xd7ff, 0xffff, 0x1ffff, 0x3ffff, 0x10ffff]);
  const cp = r.below(top + 1);
  return String.fromCodePoint(cp >= 0xd800 && cp <= 0xdfff ? cp - 0xd800 : cp);
}

function bytes(r) {
  const high = r.below(2) === 0;
  const make = () => (high ? 0x80 + r.below(0x80) : r.below(0x100));
  return Buffer.from(Array.from({ length: r.length(80) }, make)).toString('utf8');
}

function punctuation(r) {
  const signs = Array.from('!"#$%&\'()*+,-./:;<=>?@[\\]^_`{|}~¡§«»¿‐–—‘’“”…‰′※⁂€£¥₿°±×÷←→∀∂∑√∞≈≠≤' +
    '≥⟨⟩「」『』【】〜・');
  return r.times(r.length(30), () => (r.below(4) === 0 ? r.pick(WORDS.latin) : r.pick(signs)) +
    (r.below(5) === 0 ? r.pick(SPACES) : ''));
}

/** Added tokens in text: whole, cut short, doubled, with white space around. */
function specials(r, tokens) {
  return r.times(r.length(12), () => {
    const token = r.pick(tokens);
    switch (r.below(6)) {
      case 0: return token.slice(0, 1 + r.below(token.length));
      case 1: return token.slice(r.below(token.length));
      case 2: return r.pick(SPACES) + token + r.pick(SPACES);
      case 3: return token.slice(0, -1) + token;
      case 4: return prose(r).slice(0, 20);
      default: return token;
    }
  });
}

/** Text files below the folders, at most max_bytes of them, in a fixed order. */
export function sourceFiles(folders, pattern, max_bytes) {
  const files = [];
  let n_bytes = 0;
  for (const folder of folders) {
    const names = readdirSync(folder, { recursive: true }).map(String).sort();
    for (const name of names.filter((n) => pattern.test(n) && !n.includes('node_modules/'))) {
      if (n_bytes > max_bytes) return files;
      const text = readFileSync(`${folder}/${name}`, 'utf8').slice(0, 100000);
      n_bytes += text.length;
      files.push(text);
    }
  }
  return files;
}

function code(r, files) {
  const file = r.pick(files);
  const begin = r.below(file.length + 1);
  return wellFormed(file.slice(begin, begin + r.length(600)));
}

/** One string of some kind, or several of them glued together. */
export function makeString(r, files, tokens, depth = 0) {
  switch (r.below(depth === 0 ? 14 : 12)) {
    case 0:
    case 1:
    case 2: return code(r, files);
    case 3:
    case 4:
    case 5: return prose(r);
    case 6: return numbers(r);
    case 7: return r.times(r.length(40), () => r.pick(r.below(5) === 0 ? WORDS.latin : SPACES));
    case 8: return r.times(r.length(15), () => r.pick(EMOJI) + (r.below(3) === 0 ? ' ' : ''));
    case 9: return specials(r, tokens);
    case 10: return bytes(r);
    case 11: return r.below(2) === 0 ? r.times(r.length(60), () => codePoint(r)) : punctuation(r);
    default: return r.times(2 + r.below(4), () => makeString(r, files, tokens, depth + 1));
  }
}
