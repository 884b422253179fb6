// Why a node cannot join, in a sentence that says what to do. Those that another attempt cannot mend end a first start;
// a node that has joined before goes on with what it has and tries again in any case.
import { AppError, hasCode, messageOf } from "#base/errors.ts";

/** Another attempt will fail in the same way, until somebody does something. */
const lasting: ReadonlySet<string> = new Set([
  "JOIN_ANSWER",
  "JOIN_CA",
  "JOIN_HOST",
  "JOIN_NAME",
  "JOIN_SETTINGS",
  "JOIN_TOKEN",
  "JOIN_VERSION",
  "TOKEN_FORMAT",
]);
export const isLasting = (error: unknown): boolean => error instanceof AppError && lasting.has(error.code);

const untrusted = new Set([
  "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
  "UNABLE_TO_GET_ISSUER_CERT",
  "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
  "SELF_SIGNED_CERT_IN_CHAIN",
  "DEPTH_ZERO_SELF_SIGNED_CERT",
  "CERT_SIGNATURE_FAILURE",
]);

export const wrongAuthority = (server: string): AppError =>
  new AppError(
    "JOIN_CA",
    `the authority of ${server} is not the one that the token names: take the token from the server you mean ` +
      "(its data folder, server/token), or look for whoever answers in its place",
  );

/** Of whoever claims the right authority, and of another cluster than the one that this node has joined. */
const unprovenAuthority = (server: string): AppError =>
  new AppError(
    "JOIN_CA",
    `${server} does not prove to be a server of the cluster that the token names, or that this node has joined: ` +
      "take the token from the server you mean (its data folder, server/token), or look for whoever answers in its place",
  );

/** A difference that matters to pods, logs and certificates of others; nothing of mote itself minds. */
const clockToleranceMs = 24 * 3600_000;

/** Undefined: this machine's clock is about the server's. */
export function clockProblem(nowMs: number, serverMs: number): string | undefined {
  if (Math.abs(nowMs - serverMs) <= clockToleranceMs) return undefined;
  const [own, theirs] = [nowMs, serverMs].map((ms) => new Date(ms).toISOString().slice(0, 16));
  return `the clock of this machine says ${own} and that of the server ${theirs}: set the one that is wrong`;
}

/** What a request that got no answer says of the server. */
export function explain(error: unknown, server: string): unknown {
  const code = codes(error).find((one) => untrusted.has(one) || one === "ERR_TLS_CERT_ALTNAME_INVALID");
  const cause = [{}, { cause: error }] as const;
  if (code !== undefined && untrusted.has(code)) return unprovenAuthority(server);
  if (code !== undefined) {
    const message =
      `whoever answers at ${server} has a certificate of this cluster, but not one of a server ("kubernetes" does not stand ` +
      "in it): it may be a node that has taken the server's place; look who answers there";
    return new AppError("JOIN_HOST", message, ...cause);
  }
  if (!hasCode(error, "HTTP_FAILED") && !hasCode(error, "HTTP_TIMEOUT")) return error;
  const message = `cannot reach ${server} (${messageOf(error)}): is it up, and are address and port right?`;
  return new AppError("JOIN_UNREACHABLE", message, ...cause);
}

/** What an answer other than 200 says. */
export function explainAnswer(status: number, text: string, server: string): AppError {
  const said = messageIn(text);
  if (status === 401) {
    return new AppError(
      "JOIN_TOKEN",
      `${server} does not take the token: compare it with server/token in the server's data folder (a bootstrap token may have ended: mote token list)`,
    );
  }
  if (status === 409) return new AppError("JOIN_VERSION", said);
  if (status === 403) return new AppError("JOIN_NAME", said.includes("--node-name") ? said : refusedName(server, said));
  if (status === 400 && said !== text.trim()) return new AppError("JOIN_ANSWER", `${server} refuses: ${said}`);
  if (status === 503 || status === 429 || status >= 500)
    return new AppError("JOIN_LATER", `${server} is not ready: ${said}`);
  return new AppError("JOIN_ANSWER", `${server} answered ${status} (${said}): is it a mote or k3s server?`);
}

/** Of k3s, which does not say what to do. */
const refusedName = (server: string, said: string): string =>
  `${server} refuses this node (${said}): its name may be another device's. Choose another with --node-name, or delete ` +
  "the Node of that name if this device replaces it";

function messageIn(text: string): string {
  try {
    const { message } = JSON.parse(text) as { message?: unknown };
    if (typeof message === "string") return message;
  } catch {
    // Not a Status: the text itself is all there is.
  }
  return text.trim().slice(0, 300);
}

/** Of an error and what caused it. */
function codes(error: unknown): string[] {
  const found: string[] = [];
  for (let at: unknown = error; at instanceof Error && found.length < 8; at = at.cause) {
    found.push(String((at as { code?: unknown }).code ?? ""));
  }
  return found;
}
