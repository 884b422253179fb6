// The token that continues a limited list: which snapshot, and behind which key. Same shape as upstream's.
import { hasCode } from "#base/errors.ts";
import { ApiError, badRequest } from "#model/status.ts";

export interface ContinueToken {
  /** 0: the snapshot is gone, go on with what is now. */
  readonly revision: number;
  /** Key of the last object seen, below the collection's prefix. */
  readonly after: string;
}

const format = "meta.k8s.io/v1";

export function encodeContinue(token: ContinueToken): string {
  const body = { v: format, rv: token.revision === 0 ? -1 : token.revision, start: `${token.after}\0` };
  return Buffer.from(JSON.stringify(body)).toString("base64url");
}

export function decodeContinue(text: string): ContinueToken {
  let body: { v?: unknown; rv?: unknown; start?: unknown };
  try {
    body = JSON.parse(Buffer.from(text, "base64url").toString("utf8")) as typeof body;
  } catch {
    throw badRequest("continue key is not valid: could not be decoded");
  }
  const { v, rv, start } = body ?? {};
  if (v !== format) throw badRequest("continue key is not valid: server does not recognize this encoded version");
  if (typeof rv !== "number" || !Number.isSafeInteger(rv) || rv < -1 || rv === 0) {
    throw badRequest("continue key is not valid: incorrect encoded start resourceVersion (version meta.k8s.io/v1)");
  }
  // A key of another collection must not be reachable through a token.
  if (
    typeof start !== "string" ||
    start === "" ||
    !start.endsWith("\0") ||
    /(^|\/)\.\.?(\/|$)/.test(start) ||
    start.startsWith("/")
  ) {
    throw badRequest(
      "continue key is not valid: encoded start key empty or not in the collection (version meta.k8s.io/v1)",
    );
  }
  return { revision: rv === -1 ? 0 : rv, after: start.slice(0, -1) };
}

/** The snapshot is compacted: 410 with a token for the rest as it is now. Other errors pass. */
export function expiredContinue(error: unknown, after: string): unknown {
  if (!hasCode(error, "DATASTORE_COMPACTED")) return error;
  return new ApiError(
    410,
    "Expired",
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    undefined,
    { continue: encodeContinue({ revision: 0, after }) },
  );
}
