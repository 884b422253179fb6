// What a test hears of node n1 through a dialer.
import { isApiError } from "#model/status.ts";
import type { NodeDialer } from "./node-dialer.ts";

/** Status and body of the answer, or code and message of the refusal; what is no refusal is thrown. */
export async function answerOf(dialer: NodeDialer, target: string): Promise<string> {
  try {
    const answer = await dialer.request("n1", { method: "GET", target, headers: {} }, new AbortController().signal);
    let text = `${answer.status} `;
    for await (const chunk of answer.body) text += Buffer.from(chunk).toString();
    return text;
  } catch (error) {
    if (!isApiError(error)) throw error;
    return `${error.code} ${error.message}`;
  }
}
