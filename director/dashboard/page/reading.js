// Reads what the app sends. No state.

// Escapes in JSON, which the app sends in ASCII: a run of code units, or a single character after a backslash.
const ESCAPES = /(?:\\u[0-9a-f]{4})+|\\[^u]/gi;
// Control characters, invisible ones (such as those that change the direction of text), and separators of lines.
const HIDDEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

/** Parse JSON; characters that are not shown, or change how others are, become visible escapes. Line breaks stay. */
export const parse = (json) => JSON.parse(json.replace(ESCAPES, visible));

function visible(escape) {
  if (escape === "\\b" || escape === "\\f" || escape === "\\r") return `\\${escape}`;
  if (!/^\\u/i.test(escape)) return escape;
  return JSON.parse(`"${escape}"`).replace(/[\\"]/g, "\\$&").replace(HIDDEN, named);
}

function named(character) {
  const code = character.codePointAt(0).toString(16);
  if (code.length <= 2) return `\\\\x${code.padStart(2, "0")}`;
  return code.length <= 4 ? `\\\\u${code.padStart(4, "0")}` : `\\\\U${code.padStart(8, "0")}`;
}
