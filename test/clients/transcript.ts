// Conversations with a command line, as text that people review: `$ command`, `> its further lines`, then what it said.
//
//   ## a remark
//   $ kubectl get cm x
//   ! Error from server (NotFound): configmaps "x" not found       (standard error)
//   [1]                                                             (exit code, where it is not 0)
//
// `$~` asks again until the answer is the expected one, for what takes a moment to come true. What differs from run to
// run (ages, addresses, random suffixes) is replaced by names before anything is compared.

export interface Step {
  /** Remarks in front of it. */
  readonly remarks: readonly string[];
  /** For `sh -c`. */
  readonly command: string;
  readonly isPatient: boolean;
  /** Normalised; lines. */
  readonly answer: string;
}

export interface Said {
  readonly stdout: string;
  readonly stderr: string;
  readonly code: number;
}

export function parseTranscript(text: string): Step[] {
  const steps: { remarks: string[]; command: string[]; isPatient: boolean; answer: string[] }[] = [];
  let remarks: string[] = [];
  for (const line of text.split("\n")) {
    const step = steps.at(-1);
    if (line.startsWith("## ")) remarks.push(line);
    else if (line.startsWith("$ ") || line.startsWith("$~ ")) {
      const isPatient = line.startsWith("$~");
      steps.push({ remarks, command: [line.slice(isPatient ? 3 : 2)], isPatient, answer: [] });
      remarks = [];
    } else if (line.startsWith("> ") && step?.answer.length === 0) step.command.push(line.slice(2));
    else step?.answer.push(line);
  }
  return steps.map(({ command, answer, ...rest }) => ({
    ...rest,
    command: command.join("\n"),
    answer: answer.join("\n").trimEnd(),
  }));
}

export function printTranscript(steps: readonly Step[]): string {
  return steps
    .flatMap(({ remarks, command, isPatient, answer }) => [
      ...remarks,
      `${isPatient ? "$~" : "$"} ${command.replaceAll("\n", "\n> ")}`,
      ...(answer === "" ? [] : [answer]),
    ])
    .join("\n")
    .concat("\n");
}

/** Both streams and the exit code as a transcript shows them; `known` are texts that belong to this run. */
export function answerOf({ stdout, stderr, code }: Said, known: ReadonlyMap<string, string>): string {
  const lines = [normalise(stdout, known).trimEnd()];
  const errors = normalise(stderr, known).trimEnd();
  if (errors !== "") lines.push(`! ${errors.replaceAll("\n", "\n! ")}`);
  if (code !== 0) lines.push(`[${code}]`);
  return lines
    .filter((line) => line !== "")
    .join("\n")
    .trimEnd();
}

/** In this order: what is found first is gone for the later ones. */
const changing: readonly (readonly [RegExp, string])[] = [
  [/\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4} UTC/g, "<time>"],
  [/\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z/g, "<time>"],
  [/\b[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}/g, "<time>"],
  [/\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b/g, "<uid>"],
  [/(resourceVersion"?: ?")\d+"/g, '$1<rv>"'],
  [/(Resource Version: +)\d+/g, "$1<rv>"],
  [/X509SHA256=[0-9a-f]{64}/g, "X509SHA256=<hash>"],
  [/v1\.32\.\d+\+mote[\w.-]*/g, "<version>"],
  [/("goVersion": )".*"/g, '$1"<node>"'],
  [/("platform": )".*"/g, '$1"<platform>"'],
  [/(?<=web)\.[0-9a-f]{16}\b/g, ".<n>"],
  [/(Client|Kustomize) Version: .*/g, "$1 Version: <client>"],
  [/\bkubectl-edit-\d+/g, "kubectl-edit-<n>"],
  [/(?<=[a-z0-9]-)[bcdfghjklmnpqrstvwxz2456789]{5}(?![\w-])/g, "<rand>"],
  [/\b10\.43\.(?!0\.10?\b)\d+\.\d+\b/g, "<cluster-ip>"],
  [/\b10\.42\.\d+\.\d+\b/g, "<pod-ip>"],
  [/\b3[0-2](?!999\b|000\b|767\b)\d{3}\b/g, "<node-port>"],
  [/\(x\d+ over /g, "(x<n> over "],
  [/(?<![\w.:/=-])(?:\d+m)?\d+s\b(?![\w.])/g, "<age>"],
  [/(?<= {2})\d{1,2}m(?=$| {2})/gm, "<age>"],
];

function normalise(text: string, known: ReadonlyMap<string, string>): string {
  let out = text;
  for (const [found, name] of known) out = out.replaceAll(found, name);
  for (const [pattern, name] of changing) out = out.replace(pattern, name);
  return (
    out
      .split("\n")
      // Columns are as wide as what stands in them.
      .map((line) => line.replace(/(\S) {2,}/g, "$1  ").trimEnd())
      .join("\n")
  );
}
