// The token file: one line with the cluster's token, or `server=https://HOST:6443 token=...` for a device that shall join.
// Empty lines and lines that begin with '#' are skipped. Messages never repeat the token. Pure.
import { AppError } from "#base/errors.ts";

export interface TokenFile {
  /** `https://HOST:PORT` of the server to join; absent where the device is a server itself. */
  readonly server?: string;
  readonly token?: string;
}

const maxTokenLength = 1024;
const defaultPort = 6443;
const allowed = "use one line with the token, or server=https://HOST:6443 token=TOKEN";

/** Throws APPLIANCE_TOKEN saying what is wrong. */
export function parseTokenFile(text: string): TokenFile {
  const lines = text
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"));
  if (lines.length === 0) throw wrong(`the file is empty; ${allowed}`);
  if (!/^(server|token)\s*[=:]/i.test(lines[0]!)) {
    if (lines.length > 1) throw wrong(`${lines.length} lines; ${allowed}`);
    return { token: checkToken(unquote(lines[0]!)) };
  }
  const found: { server?: string; token?: string } = {};
  let rest = lines.join(" ");
  while (rest !== "") {
    const pair = /^([A-Za-z]+)\s*[=:]\s*("[^"]*"|'[^']*'|\S*)\s*/.exec(rest);
    const key = pair?.[1]?.toLowerCase();
    if (!pair || (key !== "server" && key !== "token"))
      throw wrong(`not understood after the ${Object.keys(found).at(-1) ?? "start"}; ${allowed}`);
    if (found[key] !== undefined) throw wrong(`${key} is given twice; ${allowed}`);
    const value = unquote(pair[2]!);
    found[key] = key === "server" ? checkServer(value) : checkToken(value);
    rest = rest.slice(pair[0].length);
  }
  if (found.server !== undefined && found.token === undefined) throw wrong(`server without token; ${allowed}`);
  return found;
}

/** `HOST`, `HOST:PORT` and `https://HOST[:PORT][/]` all mean the same; throws APPLIANCE_TOKEN otherwise. */
export function checkServer(value: string): string {
  const problem = () => wrong(`server: "${value}" is not allowed; use https://HOST:6443`);
  let url: URL;
  try {
    url = new URL(/^[a-z]+:\/\//i.test(value) ? value : `https://${value}`);
  } catch {
    throw problem();
  }
  if (
    url.protocol !== "https:" ||
    url.username !== "" ||
    url.pathname !== "/" ||
    url.search !== "" ||
    url.hash !== ""
  ) {
    throw problem();
  }
  // URL drops 443 as the default of its scheme; whoever wrote it meant it.
  const port = url.port || (/:443\/?$/.test(value) ? "443" : String(defaultPort));
  return `https://${url.hostname}:${port}`;
}

function checkToken(value: string): string {
  if (value === "") throw wrong(`the token is empty; ${allowed}`);
  if (value.length > maxTokenLength) throw wrong(`the token has ${value.length} characters; at most ${maxTokenLength}`);
  if (!/^[\x21-\x7e]+$/.test(value)) throw wrong(`the token contains blanks or characters beyond ASCII; ${allowed}`);
  return value;
}

const unquote = (text: string): string => /^(["'])(.*)\1$/.exec(text)?.[2] ?? text;
const wrong = (message: string) => new AppError("APPLIANCE_TOKEN", message);
