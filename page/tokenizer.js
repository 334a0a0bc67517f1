// Byte-level BPE as `tiny`'s tokenizer.json asks for it: text → ids, and ids → pieces of text.
//
// Which characters are letters, numbers or spaces comes as tables taken from the library's own
// tokenizer, so the ids do not depend on the browser's version of Unicode.

const WHITESPACE = /^[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*$/;
const REPLACEMENT = "\ufffd";

/** Whether a text has nothing but white space in it, as Python's `str.strip` sees it. */
export function isBlank(text) {
  return WHITESPACE.test(text);
}

/** A lone half of a surrogate pair has no UTF-8 form; it becomes U+FFFD. */
export function wellFormed(text) {
  return text.replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, REPLACEMENT);
}

/** The reversible alphabet of byte-level BPE: a printable character for each of the 256 bytes. */
function byteCharacters() {
  const characters = new Array(256);
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    characters[byte] = String.fromCharCode(printable ? byte : next++);
  }
  return characters;
}

function characterClass(ranges) {
  let text = "", at = 0;
  for (let i = 0; i < ranges.length; i += 2) { // gaps and lengths, alternating
    const start = at + ranges[i], end = start + ranges[i + 1];
    text += `\\u{${start.toString(16)}}-\\u{${end.toString(16)}}`;
    at = end;
  }
  return text;
}

export class Tokenizer {
  /** @param data {tokens, merges: [[left id, right id], …], special: ids, letters, numbers, digits, spaces} */
  constructor(data) {
    const characters = byteCharacters();
    const byteOf = new Map(characters.map((character, byte) => [character, byte]));
    this.names = data.tokens;
    this.bytes = data.tokens.map((token) => Uint8Array.from(token, (c) => byteOf.get(c)));
    const ids = new Map(data.tokens.map((token, id) => [token, id]));
    this.byteIds = characters.map((character) => ids.get(character));
    this.size = data.tokens.length;
    this.merges = new Map();
    data.merges.forEach(([left, right], rank) => {
      const merged = ids.get(data.tokens[left] + data.tokens[right]);
      this.merges.set(left * this.size + right, { rank, id: merged });
    });
    this.special = new Map(data.special.map((id) => [data.tokens[id], id]));
    const escaped = [...this.special.keys()].map((t) => t.replace(/[|\\{}()[\]^$+*?.<>]/g, "\\$&"));
    this.specialPattern = new RegExp(`(${escaped.join("|")})`);
    const [L, N, D, S] = ["letters", "numbers", "digits", "spaces"].map((k) => characterClass(data[k]));
    this.firstSplit = new RegExp(`([${D}+=\\n])`, "u");
    this.secondSplit = new RegExp(
      `'s|'t|'re|'ve|'m|'ll|'d| ?[${L}]+| ?[${N}]+| ?[^${S}${L}${N}]+|[${S}]+(?![^${S}])|[${S}]+`, "gu");
    this.known = new Map(); // word → ids
    this.encoder = new TextEncoder();
    this.decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    this.end = this.special.get("<|end|>");
  }

  /** Ids of a text in which control tokens are ordinary text. */
  encode(text) {
    const ids = [];
    for (const part of wellFormed(text).split(this.firstSplit)) {
      if (part) for (const word of part.match(this.secondSplit) || []) ids.push(...this.#word(word));
    }
    return ids;
  }

  /** Ids of a typed answer: tokenised alone, then the end token. */
  encodeAnswer(text) {
    if (isBlank(text)) throw new Error("The answer is empty; perplexity needs at least one token.");
    return [...this.encode(text), this.end];
  }

  /** Ids before an answer; an empty question is the context "without the question". */
  encodePrompt(question) {
    const text = `<|begin|><|user|>${wellFormed(question)}<|assistant|>`;
    // As the library renders it: a control token written into a question is one.
    return text.split(this.specialPattern).flatMap((part) =>
      this.special.has(part) ? [this.special.get(part)] : this.encode(part));
  }

  #word(word) {
    let ids = this.known.get(word);
    if (ids) return ids;
    ids = Array.from(this.encoder.encode(word), (byte) => this.byteIds[byte]);
    for (;;) {
      let best = Infinity, at = -1, id = -1;
      for (let i = 0; i + 1 < ids.length; i++) {
        const merge = this.merges.get(ids[i] * this.size + ids[i + 1]);
        if (merge && merge.rank < best) ({ rank: best, id } = merge), (at = i);
      }
      if (at < 0) break;
      ids.splice(at, 2, id);
    }
    if (this.known.size > 20000) this.known.clear();
    this.known.set(word, ids);
    return ids;
  }

  /** The text of some ids; bytes that are no UTF-8 become U+FFFD. */
  decode(ids) {
    const length = ids.reduce((sum, id) => sum + this.bytes[id].length, 0);
    const bytes = new Uint8Array(length);
    let at = 0;
    for (const id of ids) { bytes.set(this.bytes[id], at); at += this.bytes[id].length; }
    return this.decoder.decode(bytes);
  }

  /** The text of each id; joined they are the text of all. Ids of an unfinished character get "". */
  pieces(ids) {
    const pieces = [];
    let start = 0, read = 0;
    for (let end = 1; end <= ids.length; end++) {
      const before = Array.from(this.decode(ids.slice(start, read)));
      const now = this.decode(ids.slice(start, end));
      if (now.endsWith(REPLACEMENT) && end < ids.length && end - read < 4) {
        pieces.push(""); // perhaps the first bytes of a character
        continue;
      }
      pieces.push(Array.from(now).slice(before.length).join(""));
      [start, read] = end - start > 8 ? [read, end] : [start, end];
    }
    return pieces;
  }

  /** The text of one id by itself; of a part of a character the vocabulary's own entry. */
  name(id) {
    const text = this.decode([id]);
    return !text || text.includes(REPLACEMENT) ? this.names[id] : text;
  }
}
