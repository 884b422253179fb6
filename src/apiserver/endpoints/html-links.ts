// Links in HTML that comes through a proxy path: what a page calls /style.css is below the proxy's own path for the browser.
// Rewrites the addresses in attributes of tags, as the bytes pass; text, comments, scripts and styles stay as they are.
// Pure, and bounded: a tag that does not end within `maxTagChars` passes unchanged.
// Upstream counterpart: k8s.io/apimachinery/pkg/util/proxy/transport.go.
import { posix } from "node:path";

export interface LinkContext {
  /** Path of the proxy, without a slash at its end. */
  readonly prefix: string;
  /** HOST:PORT of the server behind. */
  readonly backendHost: string;
  /** What the client calls this server: its Host header. */
  readonly requestHost: string;
}

/** Which attributes of which elements hold addresses. */
const linkAttributes: Readonly<Record<string, readonly string[]>> = {
  a: ["href"],
  applet: ["codebase"],
  area: ["href"],
  audio: ["src"],
  base: ["href"],
  blockquote: ["cite"],
  body: ["background"],
  button: ["formaction"],
  command: ["icon"],
  del: ["cite"],
  embed: ["src"],
  form: ["action"],
  frame: ["longdesc", "src"],
  head: ["profile"],
  html: ["manifest"],
  iframe: ["longdesc", "src"],
  img: ["longdesc", "src", "usemap"],
  input: ["src", "usemap", "formaction"],
  ins: ["cite"],
  link: ["href"],
  object: ["classid", "codebase", "data", "usemap"],
  q: ["cite"],
  script: ["src"],
  source: ["src"],
  video: ["poster", "src"],
};

/** Elements whose content is no markup. */
const rawElements = new Set(["script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes"]);
const maxTagChars = 64 * 1024;

/** The address as the client has to ask for it. Relative ones and those of other hosts stay. */
export function rewriteLink(address: string, { prefix, backendHost, requestHost }: LinkContext): string {
  const parts = /^(?:[A-Za-z][A-Za-z0-9+.-]*:)?(?:\/\/([^/?#]*))?([^?#]*)(.*)$/s.exec(address);
  const [, host = "", path = "", rest = ""] = parts ?? [];
  const isElsewhere = host !== "" && host !== backendHost && host !== requestHost;
  if (isElsewhere || !path.startsWith("/")) return address;
  const start = host !== "" && host === requestHost ? address.slice(0, address.indexOf(host) + host.length) : "";
  // What the server behind already knows to be below the proxy.
  return `${start}${path.startsWith(prefix) ? path : posix.join(prefix, path)}${rest}`;
}

/** One page, piece by piece. Text is bytes as latin1, so that any encoding passes. */
export class LinkRewriter {
  readonly #context: LinkContext;
  #held = "";
  /** Until this the text passes unread. */
  #until: RegExp | undefined;

  constructor(context: LinkContext) {
    this.#context = context;
  }

  write(text: string): string {
    this.#held += text;
    let out = "";
    for (;;) {
      const piece = this.#next();
      if (piece === undefined) return out;
      out += piece;
    }
  }

  /** What was held back for want of its end. */
  end(): string {
    const rest = this.#held;
    this.#held = "";
    return rest;
  }

  /** The next part that can go; undefined when more must come first. */
  #next(): string | undefined {
    if (this.#held === "") return undefined;
    if (this.#until) return this.#skip(this.#until);
    const open = this.#held.indexOf("<");
    if (open !== 0) return this.#take(open < 0 ? this.#held.length : open);
    if (this.#held.startsWith("<!--")) {
      this.#until = /-->/;
      return this.#take(4);
    }
    // The beginning of a comment, or of a tag.
    if ("<!--".startsWith(this.#held)) return undefined;
    if (!/^<[A-Za-z]/.test(this.#held)) return this.#take(1);
    const end = endOfTag(this.#held);
    if (end === undefined) return this.#held.length > maxTagChars ? this.#take(this.#held.length) : undefined;
    const tag = this.#take(end);
    const name = (/^[^\s/>]*/.exec(tag.slice(1))?.[0] ?? "").toLowerCase();
    if (rawElements.has(name)) this.#until = new RegExp(`</${name}`, "i");
    return rewriteTag(tag, name, this.#context);
  }

  #skip(until: RegExp): string | undefined {
    const found = until.exec(this.#held);
    if (found) {
      this.#until = undefined;
      return this.#take(found.index + found[0].length);
    }
    // The end may have begun.
    const sure = this.#held.length - until.source.length;
    return sure > 0 ? this.#take(sure) : undefined;
  }

  #take(count: number): string {
    const piece = this.#held.slice(0, count);
    this.#held = this.#held.slice(count);
    return piece;
  }
}

/** Behind its ">", quoted ones apart. */
function endOfTag(text: string): number | undefined {
  let quote = "";
  for (let i = 1; i < text.length; i++) {
    const char = text[i]!;
    if (quote !== "") {
      if (char === quote) quote = "";
    } else if (char === ">") return i + 1;
    // A quote begins a value only behind "=".
    else if ((char === '"' || char === "'") && /=\s*$/.test(text.slice(Math.max(0, i - 16), i))) quote = char;
  }
  return undefined;
}

const isSpace = (char: string | undefined): boolean => char !== undefined && /\s/.test(char);

function rewriteTag(tag: string, element: string, context: LinkContext): string {
  const wanted = Object.hasOwn(linkAttributes, element) ? linkAttributes[element]! : [];
  if (wanted.length === 0) return tag;
  let out = "";
  let copied = 0;
  let i = 1 + element.length;
  const end = tag.length - 1;
  while (i < end) {
    while (i < end && (isSpace(tag[i]) || tag[i] === "/")) i++;
    const nameAt = i;
    while (i < end && !isSpace(tag[i]) && tag[i] !== "=" && tag[i] !== "/") i++;
    const name = tag.slice(nameAt, i).toLowerCase();
    while (i < end && isSpace(tag[i])) i++;
    if (tag[i] !== "=") {
      // A name alone; an "=" that has none is passed over.
      if (i === nameAt) i++;
      continue;
    }
    i++;
    while (i < end && isSpace(tag[i])) i++;
    const quote = tag[i] === '"' || tag[i] === "'" ? tag[i]! : "";
    const valueAt = quote === "" ? i : i + 1;
    i = valueAt;
    while (i < end && (quote === "" ? !isSpace(tag[i]) : tag[i] !== quote)) i++;
    if (wanted.includes(name)) {
      const value = tag.slice(valueAt, i).replaceAll("&amp;", "&");
      const rewritten = rewriteLink(value, context);
      if (rewritten !== value) {
        out += tag.slice(copied, valueAt) + rewritten.replaceAll("&", "&amp;");
        copied = i;
      }
    }
    if (quote !== "") i++;
  }
  return out + tag.slice(copied);
}
