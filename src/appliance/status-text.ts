// mote-status.txt: what a person without console or network reads after moving the card to a computer. Plain words, CRLF
// for Windows, always the same size, so that rewriting it changes nothing in the file system but the file's own sector.
// No times and no secrets: the text changes only when something has happened. Pure.

export type Phase = "starting" | "ready" | "waiting" | "error";

export interface StatusFacts {
  readonly phase: Phase;
  /** One sentence on the phase where there is more to say. */
  readonly detail?: string;
  readonly version: string;
  readonly hostname?: string;
  readonly serial?: string;
  readonly address?: string;
  readonly apiPort?: number;
  readonly slot?: string;
  /** Sentences on the configuration, in the order of the files. */
  readonly problems: readonly string[];
  /** Sentences on what was done with files found on the boot partition. */
  readonly notes: readonly string[];
}

export const statusFileName = "mote-status.txt";
export const statusSize = 4096;

const headlines: Readonly<Record<Phase, string>> = {
  starting: "The device is starting.",
  ready: "The device is ready.",
  waiting: "The device is up, but not ready yet.",
  error: "The device cannot work as asked.",
};

export function renderStatus(facts: StatusFacts): string {
  const lines = [headlines[facts.phase]];
  if (facts.detail) lines.push(facts.detail);
  lines.push("", `mote ${facts.version}${facts.slot === undefined ? "" : `, slot ${facts.slot}`}`);
  if (facts.hostname !== undefined) lines.push(`name    ${facts.hostname}`);
  if (facts.serial !== undefined) lines.push(`serial  ${facts.serial}`);
  if (facts.address !== undefined) lines.push(`address ${facts.address}`);
  if (facts.phase === "ready" && facts.address !== undefined && facts.apiPort !== undefined) {
    lines.push(`cluster https://${facts.address}:${facts.apiPort}`);
  }
  if (facts.problems.length > 0) lines.push("", "To be corrected:", ...facts.problems.map((one) => `- ${one}`));
  if (facts.notes.length > 0) lines.push("", "Done at this start:", ...facts.notes.map((one) => `- ${one}`));
  return padded(lines);
}

/** Cut at a line, filled with line ends. */
function padded(lines: readonly string[]): string {
  const end = "(more did not fit)";
  let text = "";
  for (const line of lines) {
    const next = `${text}${clean(line)}\r\n`;
    if (Buffer.byteLength(next) > statusSize - end.length - 2) {
      text += `${end}\r\n`;
      break;
    }
    text = next;
  }
  const missing = statusSize - Buffer.byteLength(text);
  return text + (missing % 2 === 1 ? " " : "") + "\r\n".repeat(Math.floor(missing / 2));
}

/** One line each, whatever a file name or value contained. */
const clean = (line: string): string => line.replace(/[^\x20-\x7e\u00a0-\uffff]+/g, " ").slice(0, 500);
