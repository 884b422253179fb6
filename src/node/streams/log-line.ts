// One line of a container log as containerd writes it (the CRI log format):
//
//   2026-11-21T01:02:03.123456789Z stdout F text of the line\n
//   time                           stream tags, colon-separated; P: the text goes on in the next line
//
// Upstream counterpart: pkg/kubelet/kuberuntime/logs. Pure.

export interface LogLine {
  /** RFC 3339 with nanoseconds, as written. */
  readonly time: string;
  readonly stream: "stdout" | "stderr";
  /** The text goes on in the next line. */
  readonly isPartial: boolean;
  /** With its line feed, unless the line is partial. */
  readonly text: Buffer;
}

const space = 0x20;
const lineFeed = 0x0a;

/** Parses a line that still has its line feed; undefined for what is no CRI log line. */
export function parseLogLine(line: Buffer): LogLine | undefined {
  const afterTime = line.indexOf(space);
  const afterStream = line.indexOf(space, afterTime + 1);
  const afterTags = line.indexOf(space, afterStream + 1);
  // A line without text may lack the last space.
  const tagsEnd = afterTags < 0 ? (line.at(-1) === lineFeed ? line.length - 1 : line.length) : afterTags;
  if (afterTime <= 0 || afterStream < 0) return undefined;
  const time = line.toString("latin1", 0, afterTime);
  const stream = line.toString("latin1", afterTime + 1, afterStream);
  if (Number.isNaN(Date.parse(time)) || (stream !== "stdout" && stream !== "stderr")) return undefined;
  const isPartial = line.toString("latin1", afterStream + 1, tagsEnd).split(":")[0] === "P";
  let text = line.subarray(Math.min(tagsEnd + 1, line.length));
  if (afterTags < 0) text = Buffer.from("\n");
  if (isPartial && text.at(-1) === lineFeed) text = text.subarray(0, -1);
  return { time, stream, isPartial, text };
}

/** The time with exactly nine digits behind the point, as upstream prints it in front of lines. */
export function fixedTime(time: string): string {
  const match = /^(.*T\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)$/.exec(time);
  return match ? `${match[1]}.${(match[2] ?? "").padEnd(9, "0").slice(0, 9)}${match[3]}` : time;
}
